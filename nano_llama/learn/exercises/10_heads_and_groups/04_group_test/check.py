import numpy as np

from nano_llama.learn.checks import test_cases


def weights(q, k):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def grouped(q, k, v):
    H, T, K = q.shape
    g = q.reshape(len(k), -1, T, K)
    return (weights(g, k[:, None]) @ v[:, None]).reshape(H, T, K)


def repeated(q, k, v):
    R = len(q) // len(k)
    return weights(q, np.repeat(k, R, axis=0)) @ np.repeat(v, R, axis=0)


def looped(q, k, v):
    R = len(q) // len(k)
    return np.array([weights(q[h], k[h // R]) @ v[h // R] for h in range(len(q))])


def tiled(q, k, v):
    R = len(q) // len(k)
    return weights(q, np.tile(k, (R, 1, 1))) @ np.tile(v, (R, 1, 1))


def values_rolled(q, k, v):
    return repeated(q, k, np.roll(v, 1, axis=0))


def first_group(q, k, v):
    return weights(q, k[:1]) @ v[:1]


def mean_of_group(q, k, v):
    out = repeated(q, k, v)
    groups = out.reshape(len(k), -1, *out.shape[1:])
    return np.broadcast_to(groups.mean(axis=1, keepdims=True), groups.shape).reshape(out.shape)


def swapped(q, k, v):
    """As if the group's heads were the outer axis."""
    H, T, K = q.shape
    g = q.reshape(-1, len(k), T, K).swapaxes(0, 1)
    return (weights(g, k[:, None]) @ v[:, None]).reshape(H, T, K)


def wide_root(q, k, v):
    return repeated(q / np.sqrt(len(q)), k, v)


def cases(seed):
    yield from test_cases(
        "check_groups",
        sound={"grouped": (grouped,), "repeated": (repeated,), "a loop": (looped,)},
        faults={
            "all heads read the first group": (first_group,),
            "all heads of a group give the same answer": (mean_of_group,),
            "values are those of the next group, keys are right": (values_rolled,),
            "keys and values are tiled": (tiled,),
            "queries are cut into groups the other way round": (swapped,),
            "scores are divided by the root of H K": (wide_root,),
        },
    )
