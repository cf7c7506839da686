"""Memorisation: the longest match against a search that tries every pair of places."""

import numpy as np
import pytest

from nano_llama.data.batches import ArrayTokens
from nano_llama.evaluation import memorisation
from nano_llama.evaluation.memorisation import SEED, longest_matches


def by_hand(text, training):
    """The length of the longest common run, by dynamic programming over all pairs."""
    best, row = 0, np.zeros(len(training) + 1, int)
    for token in text:
        row[1:] = np.where(np.asarray(training) == token, row[:-1] + 1, 0)
        best = max(best, row.max())
    return best


@pytest.mark.parametrize("chunk", [16, 100, 2**22])
def test_longest_matches(monkeypatch, chunk):
    """Few different tokens, so that long runs repeat by chance, also across the borders of chunks."""
    monkeypatch.setattr(memorisation, "CHUNK", chunk)
    rng = np.random.default_rng(chunk)
    training = rng.integers(0, 3, 3000).astype(np.uint16)
    texts = [rng.integers(0, 3, 60).tolist() for _ in range(5)]
    texts.append([*texts[0][:20], *training[1000:1040].tolist(), *texts[1][:20]])
    for text, match in zip(texts, longest_matches(texts, ArrayTokens(training)), strict=True):
        longest = by_hand(text, training)
        assert (0 if match is None else match.length) == (longest if longest >= SEED else 0)
        if match is not None:
            here = text[match.start : match.start + match.length]
            assert here == training[match.position : match.position + match.length].tolist()


def test_what_is_not_there_and_what_is_too_short():
    training = ArrayTokens(np.arange(1000, dtype=np.uint16))
    found = longest_matches([list(range(500, 500 + SEED)), list(range(500, 499 + SEED)), [7] * 50, []], training)
    assert found[0] is not None and (found[0].position, found[0].length) == (500, SEED)
    assert found[1:] == [None, None, None]
