"""A matrix of blocks computes as its dequantized form does, and nothing of the matrix's size is kept."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.formats.gguf_quants import dequantize, quantize  # noqa: E402
from nano_llama.formats.kinds import WRITABLE_BLOCKS, Kind  # noqa: E402
from nano_llama.vol2_torch import quantized_linear  # noqa: E402
from nano_llama.vol2_torch.precision import Precision  # noqa: E402
from nano_llama.vol2_torch.quantized_linear import (  # noqa: E402
    QuantizedEmbedding,
    QuantizedLinear,
    QuantizedMatrix,
)

OTHERS = [kind for kind in Kind if kind.block_size > 1 and kind not in WRITABLE_BLOCKS]


def blocks_of(kind, rows=24, columns=256):
    rng = np.random.default_rng(Kind[kind].number)
    if kind in WRITABLE_BLOCKS:
        return quantize(kind, rng.standard_normal((rows, columns)).astype(np.float32))
    blocks = rng.integers(0, 256, (rows, columns // Kind[kind].block_size, Kind[kind].block_bytes), dtype=np.uint8)
    for at in range(0, 4, 2) if kind in ("Q5_1", "Q4_K", "Q5_K") else [208] if kind == "Q6_K" else [0]:
        blocks[..., at : at + 2] = np.array([0.01], np.float16).view(np.uint8)  # scales that are numbers
    return blocks.reshape(rows, -1)


@pytest.mark.parametrize("kind", [*WRITABLE_BLOCKS, *OTHERS])
@pytest.mark.parametrize("chunk", [256 * 5, 2**20])
def test_dequantized_as_by_numpy_bit_for_bit(monkeypatch, kind, chunk):
    monkeypatch.setattr(quantized_linear, "CHUNK_CPU", chunk)  # parts of 5 rows, the last of 4
    blocks = blocks_of(kind)
    matrix, plain = QuantizedMatrix(kind, torch.from_numpy(blocks)), torch.from_numpy(dequantize(kind, blocks))
    assert matrix.shape == plain.shape and torch.isfinite(plain).all()
    assert torch.equal(matrix.dense(), plain)
    assert torch.equal(matrix.dense(torch.bfloat16), plain.bfloat16())
    assert torch.equal(matrix.rows(torch.tensor([[3, 0], [23, 3]])), plain[torch.tensor([[3, 0], [23, 3]])])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", WRITABLE_BLOCKS)
def test_product_and_gradient_are_the_dense_layers(kind, precision):
    matrix = QuantizedMatrix(kind, torch.from_numpy(blocks_of(kind)))
    dense = torch.nn.Linear(256, 24, bias=False).requires_grad_(False)
    dense.weight.copy_(matrix.dense())
    found = []
    for layer in (dense, QuantizedLinear(matrix)):
        x = torch.randn(2, 3, 256, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with Precision(precision, "cpu").autocast():
            y = layer(x)
        (y.float() ** 2).sum().backward()
        found.append((y, x.grad))
    assert found[0][0].dtype == found[1][0].dtype
    for plain, quantized in zip(*found, strict=True):
        assert torch.equal(plain, quantized)


def test_nothing_is_kept_for_the_backward_pass():
    matrix, kept = QuantizedMatrix("Q8_0", torch.from_numpy(blocks_of("Q8_0"))), []
    x = torch.randn(5, 256, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = QuantizedLinear(matrix)(x)
    assert y.requires_grad and not kept
    assert not QuantizedEmbedding(matrix)(torch.arange(4)).requires_grad
