"""Attention to a block of keys, against torch's with its autograd; blocks merged, against attention to all."""

import pytest
import torch
import torch.nn.functional as F

from nano_llama.vol2_torch.parallel.attention_blocks import (
    attend_block,
    attend_block_backward,
    merge,
    plain_block,
    plain_block_backward,
)

KINDS = {"kernel": (attend_block, attend_block_backward), "plain": (plain_block, plain_block_backward)}


def drawn(G: int, T: int = 12, S: int = 12, dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    shapes = ((2, 4, T, 8), (2, G, S, 8), (2, G, S, 8), (2, 4, T, 8))
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]  # q, k, v, dout


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("G", [4, 2, 1])
@pytest.mark.parametrize("causal", [True, False])
def test_a_block_is_torchs_attention_with_its_gradients(kind, G, causal):
    q, k, v, dout = drawn(G)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    expected = F.scaled_dot_product_attention(*leaves, is_causal=causal, enable_gqa=True)
    expected.backward(dout)
    forward, backward = KINDS[kind]
    out, lse = forward(q, k, v, causal)
    torch.testing.assert_close(out, expected.detach(), rtol=0, atol=1e-12)
    scores = q @ k.repeat_interleave(4 // G, 1).mT / 8**0.5
    if causal:
        scores = scores.masked_fill(~torch.ones(12, 12, dtype=torch.bool).tril(), float("-inf"))
    torch.testing.assert_close(lse, scores.logsumexp(-1), rtol=0, atol=1e-12)
    for got, leaf in zip(backward(dout, q, k, v, out, lse, causal), leaves, strict=True):
        torch.testing.assert_close(got, leaf.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_merge_to_attention_to_all_and_so_do_their_gradients(kind):
    q, k, v, dout = drawn(2, T=5, S=13)
    q = q * 30  # some probabilities are close to 1, others underflow
    forward, backward = KINDS[kind]
    whole, whole_lse = forward(q, k, v, False)
    out, lse = torch.zeros_like(q), torch.full(q.shape[:3], float("-inf"), dtype=q.dtype)
    blocks = [slice(0, 4), slice(4, 5), slice(5, 13)]
    for block in blocks:
        out, lse = merge(out, lse, *forward(q, k[:, :, block], v[:, :, block], False))
    torch.testing.assert_close(out, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(lse, whole_lse, rtol=0, atol=1e-12)
    parts = [backward(dout, q, k[:, :, b], v[:, :, b], out, lse, False) for b in blocks]
    dq, dk, dv = backward(dout, q, k, v, whole, whole_lse, False)
    torch.testing.assert_close(sum(part[0] for part in parts), dq, rtol=0, atol=1e-11)
    torch.testing.assert_close(torch.cat([part[1] for part in parts], 2), dk, rtol=0, atol=1e-11)
    torch.testing.assert_close(torch.cat([part[2] for part in parts], 2), dv, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_keeps_its_denominators_in_float32(kind):
    q, k, v, dout = drawn(2, dtype=torch.bfloat16)
    forward, backward = KINDS[kind]
    out, lse = forward(q, k, v, True)
    assert (out.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    exact, exact_lse = forward(q.double(), k.double(), v.double(), True)
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=2e-2)
    torch.testing.assert_close(lse.double(), exact_lse, rtol=0, atol=2e-2)
    expected = backward(dout.double(), q.double(), k.double(), v.double(), exact, exact_lse, True)
    for got, want in zip(backward(dout, q, k, v, out, lse, True), expected, strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.double(), want, rtol=0, atol=0.06 * want.abs().max().item())
