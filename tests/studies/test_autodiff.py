"""The study's measurements: kept memory counted once and without inputs, gradients equal to autograd's."""

import numpy as np
import pytest

from nano_llama.studies import autodiff as study

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def pairs():
    return study.make_pairs(torch, B=2, T=12, D=16, H=2, F=24, V=30, seed=0)


def test_both_sides_have_the_same_gradients(pairs):
    for name, pair in pairs.items():
        _, _, ours = study.by_hand(pair, repeats=1)
        _, _, theirs = study.automatically(torch, pair, repeats=1)
        assert len(ours) == len(theirs) == len(pair.inputs)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)


def test_kept_bytes_count_memory_once_and_leave_the_inputs_out():
    x, kept = np.zeros((10, 4)), np.zeros(100)
    cache = (x.reshape(-1), kept, kept[:50], [kept.reshape(10, 10).T], 3, "half")
    assert study.bytes_kept(cache, (x,)) == kept.nbytes


def test_softmax_keeps_its_output_on_both_sides(pairs):
    output = 2 * 2 * 12 * 12 * 4 / 2**20  # (B,H,T,T) float32
    assert study.by_hand(pairs["softmax"], 1)[1] == pytest.approx(output)
    assert study.automatically(torch, pairs["softmax"], 1)[1] == pytest.approx(output)
