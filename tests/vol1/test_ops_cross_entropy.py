"""Cross-entropy: against torch's own, with ignored targets, none left, large logits, z_loss, and wrong targets."""

import math

import numpy as np
import pytest

from helpers.op_references import relative_error
from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy.ops.registry import FAST, PLAIN

PAIRS = {"plain": PLAIN.cross_entropy, "fast": FAST.cross_entropy}


@pytest.fixture(params=PAIRS)
def pair(request):
    return PAIRS[request.param]


@pytest.mark.parametrize("scale", [1.0, 50.0, 1e4])
def test_torchs_own_cross_entropy_agrees(pair, scale):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits, targets = scale * rng.standard_normal((3, 7, 29)), rng.integers(0, 29, (3, 7))
    targets[1, 2:6] = -100
    loss, cache = pair.forward(logits, targets)
    leaf = torch.tensor(logits).requires_grad_()
    theirs = torch.nn.functional.cross_entropy(leaf.flatten(0, 1), torch.tensor(targets).flatten())
    theirs.backward()
    assert isinstance(loss, float) and loss == pytest.approx(theirs.item(), rel=1e-12)
    assert relative_error(pair.backward(1.0, cache), leaf.grad) < 1e-12


def test_all_ignored_is_zero_and_so_are_the_gradients(pair):
    logits = np.random.default_rng(1).standard_normal((2, 3, 5))
    loss, cache = pair.forward(logits, np.full((2, 3), -100), z_loss=0.1)
    assert loss == 0.0
    assert not pair.backward(1.0, cache).any()


def test_a_fast_cache_is_used_up_by_its_backward():
    _, cache = FAST.cross_entropy.forward(np.zeros((1, 2, 5)), np.zeros((1, 2), int))
    FAST.cross_entropy.backward(1.0, cache)
    with pytest.raises(AssertionError, match="one backward"):
        FAST.cross_entropy.backward(1.0, cache)


def test_ignore_index_can_be_changed(pair):
    logits = np.random.default_rng(2).standard_normal((1, 3, 5))
    all_three, _ = pair.forward(logits[:, :2], np.array([[1, 2]]))
    ignoring, _ = pair.forward(logits, np.array([[1, 2, 0]]), ignore_index=0)
    assert ignoring == pytest.approx(all_three, rel=1e-12)


def test_uniform_logits_cost_log_v_and_z_loss_adds_its_square(pair):
    logits, targets = np.zeros((2, 4, 16)), np.zeros((2, 4), int)
    assert pair.forward(logits, targets)[0] == pytest.approx(math.log(16), rel=1e-12)
    assert pair.forward(logits, targets, z_loss=0.5)[0] == pytest.approx(math.log(16) + 0.5 * math.log(16) ** 2)


@pytest.mark.parametrize("target", [-1, 5, 2**40])
def test_a_target_outside_the_vocabulary_is_refused(pair, target):
    with pytest.raises(UserError, match=f"target {target} "):
        pair.forward(np.zeros((1, 2, 5)), np.array([[0, target]]))
