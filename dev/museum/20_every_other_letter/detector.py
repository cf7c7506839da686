"""What is to be predicted at a position is the token that follows it in the text, at every position."""

import numpy as np

from nano_llama.data.batches import ArrayTokens, Batches, validation_batches


def text(length):
    return np.random.default_rng(0).permutation(length)  # every token once: its place is known


def test_a_target_follows_its_token():
    tokens = text(200)
    follower = dict(zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True))
    for context in (1, 7, 16):
        x, y = next(Batches(ArrayTokens(tokens), batch_size=4, context=context, seed=1))
        for token, target in zip(x.ravel().tolist(), y.ravel().tolist(), strict=True):
            assert target == follower[token], f"context {context}: after {token} comes {follower[token]}, not {target}"


def test_validation_does_the_same():
    tokens = text(50)
    counted = [y[y >= 0] for _, y in validation_batches(ArrayTokens(tokens), 8, 2)]
    assert np.concatenate(counted).tolist() == tokens[1:].tolist(), "validation counts other targets"
