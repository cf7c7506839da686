import numpy as np

from nano_llama.learn.checks import test_cases


def add_at(dy, tokens, V):
    dweight = np.zeros((V, dy.shape[-1]))
    np.add.at(dweight, tokens, dy)
    return dweight


def one_hot(dy, tokens, V):
    return np.eye(V)[tokens].reshape(-1, V).T @ dy.reshape(-1, dy.shape[-1])


def loop(dy, tokens, V):
    dweight = np.zeros((V, dy.shape[-1]))
    for place in reversed(list(np.ndindex(tokens.shape))):
        dweight[tokens[place]] += dy[place]
    return dweight


def repeats_lost(dy, tokens, V):
    dweight = np.zeros((V, dy.shape[-1]))
    dweight[tokens] += dy
    return dweight


def mean_of_repeats(dy, tokens, V):
    counts = np.bincount(tokens.reshape(-1), minlength=V)
    return add_at(dy, tokens, V) / np.maximum(counts, 1)[:, None]


def token_0_skipped(dy, tokens, V):
    dweight = add_at(dy, tokens, V)
    dweight[0] = 0
    return dweight


def other_rows_left(dy, tokens, V):
    dweight = add_at(dy, tokens, V)
    absent = np.bincount(tokens.reshape(-1), minlength=V) == 0
    dweight[absent] = 1e-3
    return dweight


def first_sequence(dy, tokens, V):
    return add_at(dy[:1], tokens[:1], V)


def cases(seed):
    yield from test_cases(
        "check_backward",
        sound={"np.add.at": (add_at,), "a product with one-hot rows": (one_hot,), "a loop, last place first": (loop,)},
        faults={
            "of a token that stands twice, one gradient is lost": (repeats_lost,),
            "repeated tokens get the mean of their gradients": (mean_of_repeats,),
            "token 0 gets no gradient": (token_0_skipped,),
            "rows of tokens that do not occur are not zero": (other_rows_left,),
            "only the first sequence of a batch counts": (first_sequence,),
        },
    )
