"""RoPE's angles for every kind: how far each position rotates each pair of dimensions.

Not here: the rotation itself, which each volume writes in its own way. Tests: tests/core/test_rope.py.

Su et al. 2021 (arXiv 2104.09864, eq. 15) rotate pair i of a head by the angle  m * theta^(-2i/K)  at position m. The
other kinds stretch these frequencies so that a model sees, at positions beyond its pretraining, angles it has seen:

    linear   all frequencies divided by `factor`                                   Chen et al. 2023, arXiv 2306.15595
    dynamic  theta grown with the length of the text ("NTK-aware")                 bloc97 and emozilla 2023
    yarn     slow pairs divided, fast pairs kept, a ramp between them              Peng et al. 2023, arXiv 2309.00071
    llama3   the same idea with the ramp over wavelengths                          Llama 3.1 model card and code
"""

import math
from typing import Any, TypeVar

import numpy as np

from nano_llama.core.config import LlamaConfig, RopeScaling
from nano_llama.core.errors import UserError

Rows = TypeVar("Rows")  # a NumPy array or a PyTorch tensor


def rope_frequencies(
    config: LlamaConfig, seq_len: int | None = None, dtype: np.typing.DTypeLike = np.float64
) -> tuple[np.ndarray, float]:
    """Radians per position of each pair of dimensions, and a factor on cos and sin (1 for all kinds but YaRN).

    seq_len: the length of the text, in tokens; used by the dynamic kind only. dtype: the precision of every step;
    float32 rounds where transformers rounds, so that the angles match its own at large positions too.
    Returns (inv_freq (K/2,), attention_scaling).
    """
    K, scaling = config.head_dim, config.rope_scaling
    kind = config.rope_kind
    theta = config.rope_theta
    if scaling is not None and kind == "dynamic":
        theta = _stretched_theta(config, scaling.factor, seq_len)
    exponents = (np.arange(0, K, 2) / K).astype(dtype)  # (K/2,)
    periods = (theta ** exponents.astype(np.float64)).astype(dtype)  # (K/2,) positions per radian
    if scaling is None or kind == "dynamic":
        return 1 / periods, 1.0
    if kind == "linear":
        return 1 / periods / periods.dtype.type(scaling.factor), 1.0
    if kind == "llama3":
        return _llama3(1 / periods, scaling), 1.0
    return _yarn(periods, scaling, theta), _yarn_attention_scaling(scaling)


def rope_tables(
    config: LlamaConfig, positions: np.ndarray, dtype: np.typing.DTypeLike = np.float32, seq_len: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of every angle: positions of any shape, (T,) or (B,T) -> cos, sin (..., K/2) of `dtype`.

    In float32 the frequency, and then its product with the position, are rounded to float32 as transformers does;
    at position 100,000 this moves an angle by up to 0.004, so more precision would disagree with the models.
    seq_len: for the dynamic kind; by default the last position plus one.
    """
    positions = np.asarray(positions)
    if seq_len is None and positions.size:
        seq_len = int(positions.max()) + 1
    work = np.float64 if np.dtype(dtype) == np.float64 else np.float32
    inv_freq, scaling = rope_frequencies(config, seq_len, work)
    angles = positions.astype(work)[..., None] * inv_freq  # (..., K/2)
    angles = angles.astype(np.float64)
    return (np.cos(angles) * scaling).astype(dtype), (np.sin(angles) * scaling).astype(dtype)


def half_to_interleaved(weight: Rows, head_dim: int) -> Rows:
    """The rows of W_q or W_k, (n K, ...), an array or a tensor, from Hugging Face's half layout, in which RoPE rotates
    feature i with i + K/2, to the interleaved one of Meta's checkpoints and GGUF, in which it rotates 2i with 2i + 1.

    Attention is unchanged. Raises UserError where the rows are not whole heads.
    """
    return _regroup(weight, head_dim, (2, head_dim // 2))


def interleaved_to_half(weight: Rows, head_dim: int) -> Rows:
    """The way back from half_to_interleaved."""
    return _regroup(weight, head_dim, (head_dim // 2, 2))


def _regroup(weight: Any, head_dim: int, pairs: tuple[int, int]) -> Any:
    if head_dim % 2 or len(weight) % head_dim:
        raise UserError(f"{len(weight)} rows are not whole heads of {head_dim} features, an even number.")
    return weight.reshape(-1, *pairs, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def require_constant_angles(config: LlamaConfig, what: str) -> None:
    """Raise UserError for the dynamic kind: with the text its angles change, and cached keys would be wrong."""
    if config.rope_kind == "dynamic":
        raise UserError(
            f"{what} does not support RoPE kind 'dynamic': its angles depend on the length of the text.",
            hint='Use --engine numpy, in Python LLM(path, runner="numpy"); or a model with YaRN.',
        )


def _stretched_theta(config: LlamaConfig, factor: float, seq_len: int | None) -> float:
    """theta grown so that the slowest pair turns over `seq_len` as far as it did over the original context."""
    length = max(seq_len or 0, config.max_position_embeddings)
    stretch = factor * length / config.max_position_embeddings - (factor - 1)
    return config.rope_theta * stretch ** (config.head_dim / (config.head_dim - 2))


def _llama3(inv_freq: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Keep wavelengths below original/high, divide those above original/low, and blend linearly between."""
    original, low, high = _given(
        scaling.original_max_position_embeddings, scaling.low_freq_factor, scaling.high_freq_factor
    )
    wavelength = 2 * math.pi / inv_freq  # (K/2,) positions per turn
    keep = np.clip((original / wavelength - low) / (high - low), 0.0, 1.0)  # 1: fast pair, 0: slow pair
    return (1 - keep) * inv_freq / scaling.factor + keep * inv_freq


def _yarn(periods: np.ndarray, scaling: RopeScaling, theta: float) -> np.ndarray:
    """The ramp of section 3.2: pairs that turn more than beta_fast times are kept, fewer than beta_slow divided."""
    (original,) = _given(scaling.original_max_position_embeddings)
    K = 2 * len(periods)

    def pair_that_turns(times: float) -> float:  # solves  original * theta^(-2i/K) = 2 pi * times  for i
        return K * math.log(original / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = pair_that_turns(scaling.beta_fast or 32.0)
    high = pair_that_turns(scaling.beta_slow or 1.0)
    if scaling.truncate is not False:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, K - 1)
    width = (high - low) or 0.001  # a ramp of zero width is a step
    keep = 1 - np.clip((np.arange(K // 2, dtype=periods.dtype) - low) / width, 0.0, 1.0)
    return 1 / (scaling.factor * periods) * (1 - keep) + 1 / periods * keep


def _yarn_attention_scaling(scaling: RopeScaling) -> float:
    """Eq. 22: sqrt(1/t) = 0.1 ln(s) + 1, here on cos and sin; with DeepSeek's two `mscale` where they are given."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor

    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return mscale(scaling.mscale) / mscale(scaling.mscale_all_dim)
    return mscale(1.0)


def _given(*values: float | None) -> list[float]:
    assert all(value is not None for value in values), "RopeScaling guarantees the fields of its kind"
    return [value for value in values if value is not None]
