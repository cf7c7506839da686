"""What a validation loss means: every position once, and the figures that follow."""

import math

import numpy as np
import pytest

from nano_llama.data.batches import ArrayTokens
from nano_llama.training.evaluation import Evaluation, evaluate_split


class Split(ArrayTokens):
    num_bytes = 300


SPLIT = Split(np.arange(101) % 7)


def bigram_nats(tokens, targets):
    """A model that knows one thing: after 3 comes 4, surely (1 nat wrong otherwise)."""
    counted = targets != -100
    wrong = (tokens == 3) & (targets != 4) | (tokens != 3)
    return float(np.count_nonzero(wrong & counted))


@pytest.mark.parametrize("context", [1, 7, 16, 100, 500])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_every_position_counts_once_whatever_the_windows(context, batch_size):
    evaluation = evaluate_split(bigram_nats, SPLIT, context, batch_size)
    assert evaluation.tokens == 100
    after_three = np.count_nonzero(SPLIT.array[:-1] == 3)
    assert evaluation.loss == pytest.approx((100 - after_three) / 100)


def test_the_figures():
    evaluation = Evaluation(loss=math.log(8), tokens=200, bytes=300, seconds=1.0)
    assert evaluation.perplexity == pytest.approx(8.0)
    assert evaluation.bits_per_byte == pytest.approx(3 * 200 / 300), "8 choices are 3 bits a token"
    assert set(evaluation.to_json()) == {"loss", "perplexity", "bits_per_byte", "tokens", "bytes", "seconds"}
    assert Evaluation(loss=1e9, tokens=1, bytes=1, seconds=0.0).perplexity < math.inf


def test_it_can_be_given_up_and_watched():
    heard = []
    assert evaluate_split(bigram_nats, SPLIT, 16, 2, give_up=lambda _: len(heard) == 2, on_batch=heard.append) is None
    assert heard == [32, 32]
