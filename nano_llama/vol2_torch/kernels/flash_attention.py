"""Flash attention in Triton: attention of all heads without the T x T matrix, forward and backward.

The kernels are in flash_forward.py and flash_backward.py, the plain form in vol1_numpy/ops/attention.py. To
torch.compile each direction is one operator, so a compiled layer stays whole.
Tests: tests/vol2/kernels/test_flash_attention.py.
"""

import math
from typing import Any

import torch
from torch import Tensor

from nano_llama.core.errors import UserError
from nano_llama.vol2_torch.kernels.flash_configs import config_for
from nano_llama.vol2_torch.kernels.launch import check_tensors, is_interpreted

HEAD_DIMS = range(16, 129)


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = True,
    documents: Tensor | None = None,
    key_documents: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T / sqrt(K)) v for every batch entry and head; query head h reads key/value head h // (H / G).

    q (B,H,T,K), k, v (B,G,S,K) -> (B,H,T,K), laid out as (B,T,H,K), so that y.transpose(1, 2).flatten(2) copies
    nothing. Differentiable once; the same inputs give the same bits, in the backward too.

    causal: query t sees keys up to t + S - T, so that the last query sees the last key.
    documents (B,T), integers: a query sees only keys of its own document. key_documents (B,S): the keys' documents,
    where they are not the queries'. A query that sees no key gets zeros, and passes no gradient on.

    float16 and bfloat16 are multiplied by tensor cores and summed in float32; float32 is multiplied as float32, never
    as TF32. Within torch.autocast q, k and v are converted as torch's own attention would.
    Raises UserError for shapes, dtypes and head dims that do not fit, EnvironmentFault where no kernel can run.
    """
    if torch.is_autocast_enabled(q.device.type):
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
    if documents is not None and key_documents is None:
        key_documents = documents
    _check(q, k, v, documents, key_documents)
    return torch.ops.nano_llama.flash_attention(q, k, v, causal, documents, key_documents)[0]


def _check(q: Tensor, k: Tensor, v: Tensor, documents: Tensor | None, key_documents: Tensor | None) -> None:
    shapes = f"Flash attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.dim() != 4 or k.shape != v.shape or k.dim() != 4 or (q.shape[0], q.shape[3]) != (k.shape[0], k.shape[3]):
        raise UserError(f"{shapes}: expected q (B,H,T,K) and k, v (B,G,S,K).")
    if q.shape[1] % k.shape[1]:
        raise UserError(f"{shapes}: {q.shape[1]} query heads, which is not a multiple of {k.shape[1]} key/value heads.")
    if q.shape[3] not in HEAD_DIMS:
        raise UserError(
            f"Flash attention: head dim {q.shape[3]}; the kernels take {HEAD_DIMS.start} to {HEAD_DIMS[-1]}.",
            hint="Use torch's attention for this model: --attention sdpa.",
        )
    if key_documents is not None and documents is None:
        raise UserError("Flash attention: key_documents without documents.", hint="Pass the queries' documents too.")
    for name, ids, of in (("documents", documents, q), ("key_documents", key_documents, k)):
        expected = (of.shape[0], of.shape[2])
        if ids is not None and (ids.shape != expected or ids.dtype.is_floating_point or ids.device != q.device):
            raise UserError(
                f"Flash attention: {name} {tuple(ids.shape)} of {ids.dtype} on {ids.device}; expected integers, "
                f"{expected}, on {q.device}.",
                hint="" if name == "documents" else "With S other than T, pass the keys' own as key_documents, (B,S).",
            )


# -- the operators, as torch knows them ---------------------------------------------------------------------------


@torch.library.custom_op("nano_llama::flash_attention", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, documents: Tensor | None, key_documents: Tensor | None
) -> tuple[Tensor, Tensor]:
    """-> out (B,H,T,K), lse (B,H,T): log2 of each query's sum of exponentials, inf where it sees no key."""
    check_tensors("Flash attention", q, k, v)
    if q.dtype == torch.float64 and not is_interpreted():
        raise UserError(
            "Flash attention: float64 is for tests in Triton's interpreter; on a GPU the kernels take 16 and 32 bits.",
            hint="Use torch's attention for float64: --attention sdpa.",
        )
    from nano_llama.vol2_torch.kernels.flash_forward import forward_kernel

    q, k, v = (_rows_contiguous(x) for x in (q, k, v))
    out, lse = _outputs(q)
    config = config_for("forward", q.dtype, q.shape[3])
    B, H, T, _ = q.shape
    with torch.cuda.device_of(q):
        forward_kernel[(B * H * math.ceil(T / config.queries),)](
            q, k, v, out, lse, *_documents(q, documents, key_documents),
            *_strides(q, k, v, out), H, T, k.shape[2], _scale(q) * math.log2(math.e),
            **_constants(q, k, causal, documents), BLOCK_T=config.queries, BLOCK_S=config.keys,
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip
    return out, lse


@_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, documents: Tensor | None, key_documents: Tensor | None
) -> tuple[Tensor, Tensor]:
    return _outputs(q)


@torch.library.custom_op("nano_llama::flash_attention_backward", mutates_args=())
def _backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, dout: Tensor,
    causal: bool, documents: Tensor | None, key_documents: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """-> dq (B,H,T,K), dk, dv (B,G,S,K)"""
    from nano_llama.vol2_torch.kernels.flash_backward import delta_kernel, dkdv_kernel, dq_kernel

    gradients = dq, dk, dv = _gradients(q, k, v)
    q, k, v, dout = (_rows_contiguous(x) for x in (q, k, v, dout))
    (B, H, T, K), (_, G, S, _) = q.shape, k.shape
    delta = torch.empty_like(lse)  # (B,H,T)
    ids = _documents(q, documents, key_documents)
    scales = (_scale(q) * math.log2(math.e), _scale(q))
    constants = _constants(q, k, causal, documents)
    with torch.cuda.device_of(q):
        delta_kernel[(B * H * math.ceil(T / 64),)](
            out, dout, delta, *_strides(out, dout), H, T,
            K=K, WIDE=constants["WIDE"], BLOCK_T=64, BLOCK_K=constants["BLOCK_K"],
        )  # fmt: skip
        config = config_for("dq", q.dtype, K)
        dq_kernel[(B * H * math.ceil(T / config.queries),)](
            q, k, v, dout, lse, delta, dq, *ids, *_strides(q, k, v, dout, dq), H, T, S, *scales,
            **constants, BLOCK_T=config.queries, BLOCK_S=config.keys,
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip
        config = config_for("dkdv", q.dtype, K)
        dkdv_kernel[(B * G * math.ceil(S / config.keys),)](
            q, k, v, dout, lse, delta, dk, dv, *ids, *_strides(q, k, v, dout, dk, dv), H, T, S, *scales,
            **constants, EVEN=T % config.queries == 0, BLOCK_T=config.queries, BLOCK_S=config.keys,
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip
    return gradients


@_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, dout: Tensor,
    causal: bool, documents: Tensor | None, key_documents: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _gradients(q, k, v)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.causal, documents, key_documents = inputs
    ctx.save_for_backward(q, k, v, *output, documents, key_documents)


def _differentiate(ctx: Any, dout: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, *documents = ctx.saved_tensors
    gradients = torch.ops.nano_llama.flash_attention_backward(q, k, v, out, lse, dout, ctx.causal, *documents)
    return *gradients, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
OPERATOR = torch.ops.nano_llama.flash_attention.default  # what activation checkpointing keeps the results of


# -- what a launch needs ------------------------------------------------------------------------------------------


def _outputs(q: Tensor) -> tuple[Tensor, Tensor]:
    B, H, T, K = q.shape
    wide = torch.promote_types(q.dtype, torch.float32)
    return q.new_empty(B, T, H, K).transpose(1, 2), q.new_empty(B, H, T, dtype=wide)


def _gradients(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each laid out (B,T,H,K), as a projection's output, whose gradient it becomes."""
    dq, dk, dv = (x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (q, k, v))
    return dq, dk, dv


def _rows_contiguous(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(*tensors: Tensor) -> list[int]:
    return [tensor.stride(axis) for tensor in tensors for axis in range(3)]


def _documents(q: Tensor, documents: Tensor | None, key_documents: Tensor | None) -> tuple[Tensor, Tensor]:
    """Contiguous; where there are none, q in their place, which is not read."""
    if documents is None or key_documents is None:
        return q, q
    return documents.contiguous(), key_documents.contiguous()


def _scale(q: Tensor) -> float:
    return 1 / math.sqrt(q.shape[3])


def _constants(q: Tensor, k: Tensor, causal: bool, documents: Tensor | None) -> dict[str, Any]:
    """The arguments that a kernel is compiled for."""
    import triton
    import triton.language as tl

    return {
        "GROUP": q.shape[1] // k.shape[1],
        "K": q.shape[3],
        "CAUSAL": causal,
        "PACKED": documents is not None,
        "WIDE": tl.float64 if q.dtype == torch.float64 else tl.float32,
        "BLOCK_K": triton.next_power_of_2(q.shape[3]),
    }
