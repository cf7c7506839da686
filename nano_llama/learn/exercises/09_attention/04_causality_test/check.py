import numpy as np

from nano_llama.learn.checks import test_cases


def weights(q, k, allowed):
    scores = np.where(allowed, q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def plain(q, k, v):
    return weights(q, k, np.tri(len(q), dtype=bool)) @ v


def online(q, k, v):
    """Key by key, with a running maximum."""
    out = np.zeros_like(v)
    for t in range(len(q)):
        m, total, sums = -np.inf, 0.0, 0 * v[0]
        for s in range(t, -1, -1):
            z = q[t] @ k[s] / np.sqrt(q.shape[1])
            new = max(m, z)
            total, sums = total * np.exp(m - new) + np.exp(z - new), sums * np.exp(m - new) + np.exp(z - new) * v[s]
            m = new
        out[t] = sums / total
    return out


def windowed(q, k, v):
    n = len(q)
    return weights(q, k, np.tri(n, dtype=bool) & ~np.tri(n, k=-4, dtype=bool)) @ v


def one_shift(q, k, v):
    """Exponentials relative to one score for all rows, which the future may set: they only round differently."""
    scores = q @ k.T / np.sqrt(q.shape[1])
    seen = np.where(np.tri(len(q), dtype=bool), scores, -np.inf)
    largest = seen.max(axis=1, keepdims=True)
    e = np.exp(seen - np.clip(np.nanmax(scores), largest, largest + 30))
    return e @ v / e.sum(axis=1, keepdims=True)


def one_ahead(q, k, v):
    return weights(q, k, np.tri(len(q), k=1, dtype=bool)) @ v


def masked_late(q, k, v):
    return np.tril(weights(q, k, np.ones((len(q), len(q)), bool))) @ v


def blocks(q, k, v):
    place = np.arange(len(q))
    place = np.where(place < 8, place, 8 + place // 8)  # the first eight see no farther than themselves
    return weights(q, k, place[:, None] >= place[None, :]) @ v


def centred_keys(q, k, v):
    return plain(q, k * (1 + 0.1 * k.std()), v)


def last_row_open(q, k, v):
    allowed = np.tri(len(q), dtype=bool)
    allowed[len(q) // 2] = True
    return weights(q, k, allowed) @ v


def no_mask(q, k, v):
    return weights(q, k, np.ones((len(q), len(q)), bool)) @ v


def cases(seed):
    yield from test_cases(
        "check_causal",
        sound={
            "a mask": (plain,),
            "key by key, the newest first": (online,),
            "a window of four": (windowed,),
            "one shift for the exponentials of all rows": (one_shift,),
        },
        faults={
            "the mask begins one place late": (one_ahead,),
            "no mask at all": (no_mask,),
            "the mask comes after the softmax, whose sums have seen everything": (masked_late,),
            "one position in the middle sees everything": (last_row_open,),
            "from the ninth position on, all of a block of eight see each other": (blocks,),
            "keys are scaled by a statistic of the whole text": (centred_keys,),
        },
    )
