"""The validation loss is the mean over all targets of the split, however they come in batches."""

import numpy as np

from nano_llama.data.batches import ArrayTokens, Validation, validation
from nano_llama.training.evaluation import evaluate

TOKENS = np.random.default_rng(0).integers(0, 9, 103)


def loss_sum(tokens, targets):
    """A model that pays as many nats for a token as its number and that before it say."""
    counted = targets != -100
    return float(np.sum((targets + tokens) * counted))


def test_the_batch_size_changes_nothing():
    expected = np.mean(TOKENS[:-1] + TOKENS[1:])
    for context in (10, 16):
        for batch_size in (1, 2, 4, 7, 100):
            data = validation(ArrayTokens(TOKENS), 500, context, batch_size)
            found = evaluate(loss_sum, data)
            assert np.isclose(found.loss, expected), (
                f"batches of {batch_size} rows of {context}: the loss is {found.loss:.4f}, the mean over all targets is"
                f" {expected:.4f}"
            )
            assert found.tokens == len(TOKENS) - 1, f"batches of {batch_size}: {found.tokens} targets are counted"


def test_unequal_batches_and_a_head():
    targets = [np.array([[1, 2, 3, 4]]), np.array([[8, -100, -100, -100]]), np.array([[5, 5, -100, -100]])]
    data = Validation(lambda: ((np.zeros((1, 4), int), y) for y in targets), 3, 7, 70)
    assert np.isclose(evaluate(loss_sum, data).loss, 28 / 7), "batches with 4, 1 and 2 targets: not their common mean"
    ticks = iter(range(100))
    head = evaluate(loss_sum, data, give_up=lambda _: next(ticks) >= 2, keep_head=True)
    assert np.isclose(head.loss, 18 / 5), "stopped after batches with 4 and 1 targets: not their common mean"
