"""Attention in its four forms: single head, all heads, blocks of queries, online. Masks, empty rows, large scores."""

import tracemalloc

import numpy as np
import pytest

from helpers.op_references import attention_reference, relative_error
from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy import gradcheck, ops
from nano_llama.vol1_numpy.masks import causal_mask

FORMS = {
    "plain": (ops.attention_forward, ops.attention_backward),
    "tiled": (ops.tiled_attention_forward, ops.tiled_attention_backward),
    "flash": (ops.flash_attention_forward, ops.flash_attention_backward),
}
BLOCKED = {name: pair for name, pair in FORMS.items() if name != "plain"}


def qkv(rng, B=2, H=6, G=2, T=37, K=8, dtype=np.float64, scale=1.0):
    q, k, v = (rng.standard_normal((B, n, T, K)).astype(dtype) for n in (H, G, G))
    return scale * q, scale * k, v


@pytest.mark.parametrize("mask", ["none", "causal", "random", "documents", "one key", "nothing"])
@pytest.mark.parametrize("block", [1, 5, 16, 64])
@pytest.mark.parametrize("form", BLOCKED)
def test_blocked_forms_equal_the_plain_one(form, block, mask):
    rng = np.random.default_rng(block)
    q, k, v = qkv(rng)
    T = q.shape[2]
    documents = np.sort(rng.integers(0, 3, (2, T)))
    masks = {
        "none": None,
        "causal": causal_mask(T),
        "random": rng.random((2, 1, T, T)) < 0.3,
        "documents": (documents[:, :, None] == documents[:, None, :])[:, None] & causal_mask(T),
        "one key": np.eye(T, dtype=bool),
        "nothing": np.zeros((T, T), bool),
    }
    forward, backward = BLOCKED[form]
    out, cache = forward(q, k, v, masks[mask], block)
    plain, plain_cache = ops.attention_forward(q, k, v, masks[mask])
    assert relative_error(out, plain) < 1e-13
    dout = rng.standard_normal(out.shape)
    for ours, theirs in zip(backward(dout, cache), ops.attention_backward(dout, plain_cache), strict=True):
        if mask in ("one key", "nothing") and ours is not theirs and not theirs.any():
            assert not ours.any()  # exactly zero, not a small number
        assert relative_error(ours, theirs) < 1e-12


def test_every_head_is_a_single_head():
    q, k, v = qkv(np.random.default_rng(0), B=1)
    mask = causal_mask(37)
    out, _ = ops.attention_forward(q, k, v, mask)
    for h in range(6):
        one, _ = ops.single_head_attention_forward(q[0, h], k[0, h // 3], v[0, h // 3], mask)
        np.testing.assert_allclose(out[0, h], one, rtol=1e-12)


def test_tiled_attention_recomputes_its_weights_beyond_some_length(monkeypatch):
    q, k, v = qkv(np.random.default_rng(6))
    out, kept = ops.tiled_attention_forward(q, k, v, causal_mask(37))
    monkeypatch.setattr("nano_llama.vol1_numpy.ops.tiled_attention.MAX_KEPT_KEYS", 36)
    again, made = ops.tiled_attention_forward(q, k, v, causal_mask(37))
    np.testing.assert_array_equal(again, out)
    assert all(e is None for e in made[-1]) and not any(e is None for e in kept[-1])
    for a, b in zip(ops.tiled_attention_backward(out, kept), ops.tiled_attention_backward(out, made), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("form", FORMS)
def test_a_query_without_keys_gives_zeros_and_zero_gradients(form):
    forward, backward = FORMS[form]
    q, k, v = qkv(np.random.default_rng(1), T=9)
    mask = causal_mask(9).copy()
    mask[4] = False
    with np.errstate(all="raise", under="ignore", divide="ignore"):
        out, cache = forward(q, k, v, mask)
        dq, dk, dv = backward(np.ones_like(out), cache)
    assert not out[:, :, 4].any() and not dq[:, :, 4].any()
    assert np.isfinite(out).all() and all(np.isfinite(g).all() for g in (dq, dk, dv))
    gradcheck(lambda q, k, v: forward(q, k, v, mask), backward, (q, k, v), samples=20)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("form", FORMS)
def test_large_scores_do_not_overflow(form, dtype):
    """Scores near +-1000: exp of them would overflow, in float32 already beyond 88."""
    torch = pytest.importorskip("torch")
    forward, backward = FORMS[form]
    q, k, v = qkv(np.random.default_rng(2), dtype=dtype, scale=20.0)
    mask = causal_mask(37)
    out, cache = forward(q, k, v, mask)
    leaves = [torch.tensor(x, dtype=torch.float64).requires_grad_() for x in (q, k, v)]
    expected = attention_reference(torch, *leaves, torch.tensor(mask))
    dout = np.random.default_rng(3).standard_normal(out.shape)
    grads = torch.autograd.grad((expected * torch.tensor(dout)).sum(), leaves)
    # A score of 1000 carries float32's rounding, 6e-5, into the exponent.
    tolerance = 1e-10 if dtype == np.float64 else 2e-3
    assert relative_error(out, expected.detach()) < tolerance
    for ours, theirs in zip(backward(dout.astype(dtype), cache), grads, strict=True):
        assert relative_error(ours, theirs) < tolerance


@pytest.mark.parametrize("form", BLOCKED)
def test_blocked_forms_never_hold_the_whole_matrix(form):
    """At T = 1024 the plain scores take 1024^2 * 8 bytes per head; a block of 32 queries a thirtieth of that."""
    forward, backward = BLOCKED[form]
    q, k, v = qkv(np.random.default_rng(4), B=1, H=2, G=1, T=1024)
    whole = 2 * 1024 * 1024 * 8
    tracemalloc.start()
    out, cache = forward(q, k, v, None, 32)
    backward(out, cache)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < whole / 4


def test_masked_tiles_are_skipped(monkeypatch):
    """Under a causal mask, 10 of 16 tiles are computed, by flash attention's own count of products."""
    q, k, v = qkv(np.random.default_rng(5), T=64)
    from nano_llama.vol1_numpy.ops.flash_attention import QueryKeyTiles

    counted = []
    honest = QueryKeyTiles.scores
    monkeypatch.setattr(QueryKeyTiles, "scores", lambda self, *a: counted.append(a[2:]) or honest(self, *a))
    ops.flash_attention_forward(q, k, v, causal_mask(64), 16)
    assert len(counted) == 10


@pytest.mark.parametrize("width", [1, 5, 13])
@pytest.mark.parametrize("form", FORMS)
def test_values_may_have_another_width_than_keys(form, width):
    forward, backward = FORMS[form]
    rng = np.random.default_rng(7)
    q, k, _ = qkv(rng, T=11)
    v = rng.standard_normal((2, 2, 11, width))
    out, _ = forward(q, k, v, causal_mask(11))
    assert out.shape == (2, 6, 11, width)
    for column in range(width):  # a column of v gives its column of out
        one, _ = ops.attention_forward(q, k, v[..., column : column + 1], causal_mask(11))
        np.testing.assert_allclose(out[..., column : column + 1], one, rtol=1e-12)
    gradcheck(lambda q, k, v: forward(q, k, v, causal_mask(11)), backward, (q, k, v), samples=12)


@pytest.mark.parametrize("form", FORMS)
def test_masks_of_another_kind_are_refused(form):
    forward, _ = FORMS[form]
    q, k, v = qkv(np.random.default_rng(8), B=2, H=2, G=2, T=4)
    causal = causal_mask(4)
    for mask, message in (
        (causal.astype(np.int64), "int64"),
        (np.where(causal, 0.0, -np.inf), "float64"),
        (np.broadcast_to(causal, (2, 4, 4)), r"\(2, 4, 4\)"),  # one for each text, which the heads' axis would take
        (np.broadcast_to(causal, (2, 2, 4, 4)), r"\(2, 2, 4, 4\)"),
        (np.ones((4, 5), bool), r"\(4, 5\)"),
    ):
        with pytest.raises(UserError, match=message):
            forward(q, k, v, mask)
    expected = forward(q, k, v, causal)[0]
    for mask in (causal[None, None], np.broadcast_to(causal, (2, 1, 4, 4)), causal[None]):
        np.testing.assert_array_equal(forward(q, k, v, mask)[0], expected)


@pytest.mark.parametrize("form", FORMS)
def test_shapes_that_do_not_fit_are_refused(form):
    forward, _ = FORMS[form]
    q, k, v = qkv(np.random.default_rng(9), T=4)
    for changed in ((q[:, :5], k, v), (q[..., :7], k, v), (q, k[:, :, :3], v), (q[:1], k, v), (q[0], k, v)):
        with pytest.raises(UserError, match="attention"):
            forward(*changed)


def test_attentions_over_two_parts_of_the_keys_merge_by_their_log_sum_exp():
    q, k, v = qkv(np.random.default_rng(10), T=24)
    mask = causal_mask(24) & (np.random.default_rng(11).random((24, 24)) < 0.7)
    mask[3] = False
    parts = []
    for keys in (slice(0, 9), slice(9, 24)):
        out, cache = ops.flash_attention_forward(q, k[:, :, keys], v[:, :, keys], mask[:, keys], 5)
        parts.append((out, ops.log_sum_exp(cache)))
    whole, cache = ops.flash_attention_forward(q, k, v, mask, 5)
    lse = np.logaddexp(parts[0][1], parts[1][1])
    np.testing.assert_allclose(lse, ops.log_sum_exp(cache), rtol=1e-12)
    assert np.isneginf(lse[:, :, 3]).all()
    weights = [np.exp(part - np.where(np.isneginf(lse), 0, lse))[..., None] for _, part in parts]
    merged = sum(weight * out for weight, (out, _) in zip(weights, parts, strict=True))
    assert relative_error(merged, whole) < 1e-13
