"""A frozen matrix that is kept as blocks of 4 or 8 bits and dequantized where it is read: the base of QLoRA.

QLoRA: Dettmers et al. 2023 (arXiv 2305.14314), with ggml's blocks in place of NF4 (formats/gguf_quants.py; its
`dequantize` is the plain reference). The backward pass dequantizes again: between the two nothing of the matrix's size
is kept.
Tests: tests/vol2/finetune/test_quantized_linear.py.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nano_llama.formats.gguf_quants import dequantize
from nano_llama.formats.kinds import Kind
from nano_llama.vol2_torch.precision import product_dtype

CHUNK_CPU, CHUNK = 2**19, 2**26  # numbers dequantized at a time: what fits a processor's caches; on a GPU, few launches


class Workspace:
    """Memory in which the matrices of a model are dequantized in turn: each is multiplied with before the next comes.

    To allocate it anew for each would cost more than to dequantize, and leave holes in the heap.
    """

    def __init__(self) -> None:
        self.bytes = torch.empty(0, dtype=torch.uint8)

    def take(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialized tensor, valid until the next is taken."""
        needed = shape.numel() * dtype.itemsize
        if len(self.bytes) < needed or self.bytes.device != device:
            self.bytes = torch.empty(needed, dtype=torch.uint8, device=device)
        return self.bytes[:needed].view(dtype).view(shape)


class QuantizedMatrix(nn.Module):
    """A matrix W (out, in) as blocks, a buffer that is never trained. It dequantizes to `dtype`.

    workspace: where products dequantize it, shared by the matrices of a model.
    """

    blocks: Tensor  # uint8 (out, bytes of a row)

    def __init__(
        self, kind: str, blocks: Tensor, dtype: torch.dtype = torch.float32, workspace: Workspace | None = None
    ):
        super().__init__()
        self.kind, self.dtype, self.workspace = Kind[kind], dtype, workspace or Workspace()
        self.register_buffer("blocks", blocks)

    @property
    def shape(self) -> torch.Size:
        rows, nbytes = self.blocks.shape
        return torch.Size((rows, nbytes // self.kind.block_bytes * self.kind.block_size))

    @property
    def device(self) -> torch.device:
        return self.blocks.device

    @torch.no_grad()
    def dense(self, dtype: torch.dtype | None = None) -> Tensor:  # (out, in)
        """The whole matrix, in memory of its own."""
        out = torch.empty(self.shape, dtype=dtype or self.dtype, device=self.device)
        return self._dequantize(self.blocks, out)

    @torch.no_grad()
    def in_workspace(self, dtype: torch.dtype) -> Tensor:  # (out, in)
        """The whole matrix, valid until the next is dequantized."""
        return self._dequantize(self.blocks, self.workspace.take(self.shape, dtype, self.device))

    @torch.no_grad()
    def rows(self, indices: Tensor) -> Tensor:  # (...) of integers -> (..., in)
        """Some of its rows: an embedding needs no others."""
        chosen = self.blocks[indices.flatten()]
        out = torch.empty(len(chosen), self.shape[1], dtype=self.dtype, device=self.device)
        return self._dequantize(chosen, out).unflatten(0, indices.shape)

    def _dequantize(self, blocks: Tensor, out: Tensor) -> Tensor:
        """Into `out`: in float32 as formats/gguf_quants.py, bit for bit, then rounded to its dtype."""
        columns, size = self.shape[1], self.kind.block_size
        rows = max((CHUNK_CPU if blocks.device.type == "cpu" else CHUNK) // columns, 1)
        for part, chunk in zip(blocks.split(rows), out.split(rows), strict=True):
            if self.kind not in UNPACK:  # a kind that only a GGUF brings along: by NumPy, which is slower
                chunk.copy_(torch.from_numpy(dequantize(self.kind, part.cpu().numpy())))
                continue
            q, d, m = UNPACK[self.kind](part.unflatten(1, (-1, self.kind.block_bytes)))
            wide = chunk if chunk.dtype == torch.float32 else torch.empty_like(chunk, dtype=torch.float32)
            numbers = wide.view(-1, columns // size, size)  # (rows, blocks of a row, numbers of a block)
            torch.mul(q, d, out=numbers)
            if m is not None:
                numbers += m
            if wide is not chunk:
                chunk.copy_(wide)
        return out


class QuantizedLinear(nn.Module):
    """y = x W^T."""

    def __init__(self, weight: QuantizedMatrix):
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:  # (..., in) -> (..., out)
        return linear(x, self.weight)


class QuantizedEmbedding(nn.Module):
    """A row of W for each token."""

    def __init__(self, weight: QuantizedMatrix):
        super().__init__()
        self.weight = weight

    def forward(self, tokens: Tensor) -> Tensor:  # (B,T) -> (B,T,D)
        return self.weight.rows(tokens)


def linear(x: Tensor, weight: Tensor | QuantizedMatrix) -> Tensor:  # (..., in) -> (..., out)
    """x W^T, in the precision of the products here (precision.py)."""
    dtype = product_dtype(x)
    if isinstance(weight, Tensor):
        return F.linear(x.to(dtype), weight.to(dtype))
    return _Product.apply(x.to(dtype), weight)


def dense(weight: Tensor | QuantizedMatrix) -> Tensor:  # (out, in)
    """The matrix itself."""
    return weight if isinstance(weight, Tensor) else weight.dense()


def in_workspace(weight: Tensor | QuantizedMatrix, dtype: torch.dtype) -> Tensor:  # (out, in)
    """The matrix as a factor of a product in that type: valid until the next is asked for."""
    return weight.to(dtype) if isinstance(weight, Tensor) else weight.in_workspace(dtype)


class _Product(torch.autograd.Function):
    """x (..., in), W (out, in) -> x W^T (..., out); backward: dx = dy W. W is frozen, so x is not kept either."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantizedMatrix) -> Tensor:
        ctx.weight = weight
        return F.linear(x, weight.in_workspace(x.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return dy @ ctx.weight.in_workspace(dy.dtype), None


# -- unpacking: (..., bytes of a block) uint8 -> q (..., numbers), d and m (..., 1) of  number = d q + m ---------------

Unpacked = tuple[Tensor, Tensor, Tensor | None]


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at byte `at` of every block, as float32 (..., 1)."""
    return blocks[..., at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """Low halves of all bytes, then high halves: (..., 16) -> (..., 32)."""
    return torch.cat((packed & 15, packed >> 4), dim=-1)


def _unpack_q8_0(blocks: Tensor) -> Unpacked:
    return blocks[..., 2:].view(torch.int8), _half(blocks, 0), None


def _unpack_q4_0(blocks: Tensor) -> Unpacked:
    return _nibbles(blocks[..., 2:]).view(torch.int8) - 8, _half(blocks, 0), None


def _unpack_q4_1(blocks: Tensor) -> Unpacked:
    return _nibbles(blocks[..., 4:]), _half(blocks, 0), _half(blocks, 2)


UNPACK: dict[str, Callable[[Tensor], Unpacked]] = {"Q8_0": _unpack_q8_0, "Q4_0": _unpack_q4_0, "Q4_1": _unpack_q4_1}
