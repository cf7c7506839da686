"""RoPE between GGUF and LlamaConfig: llama.cpp's rules for its keys, and the RopeScaling that gives the same angles.

    llama.rope.scaling.type      none, linear, yarn; linear if missing, as in llama.cpp's loader
    llama.rope.scaling.factor    or, in files from 2023, llama.rope.scale_linear; 0 counts as 1
    llama.rope.scaling.*         of YaRN: original_context_length, yarn_beta_fast, yarn_beta_slow, attn_factor ...
    rope_freqs.weight            divisors of the frequencies, applied first: how GGUF stores llama3

Keys may come in any combination. So the angles that llama.cpp would compute are computed here, and a kind of RoPE is
accepted only if it gives them; if none does, the file is refused. GGUF has no key for dynamic NTK.

Tests: tests/formats/test_gguf_rope.py.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig, RopeScaling
from nano_llama.core.errors import ConfigError, UserError
from nano_llama.core.rope import rope_frequencies
from nano_llama.formats.gguf_names import ROPE_FREQS
from nano_llama.formats.gguf_reader import GGUFFile
from nano_llama.formats.gguf_values import integer, number

OWN_ROPE_KEY = "nano_llama.rope_scaling"  # JSON; GGUF has no key for llama3's parameters
_PREFIX = "llama.rope.scaling."
_TOLERANCE = 1e-4  # of a frequency: converters compute the divisors in float32


def rope_to_gguf(config: LlamaConfig) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """-> metadata, and the tensor of divisors where there is one. Raises UserError for what GGUF cannot hold."""
    scaling = config.rope_scaling
    if scaling is None:
        return {}, {}
    if scaling.rope_type == "llama3":
        plain = rope_frequencies(config.replace(rope_scaling=None))[0]
        divisors = (plain / rope_frequencies(config)[0]).astype(np.float32)  # (K/2,)
        return {OWN_ROPE_KEY: json.dumps(scaling.to_dict())}, {ROPE_FREQS: divisors}
    if scaling.rope_type == "dynamic":
        raise UserError("GGUF cannot hold RoPE of the kind 'dynamic'.", hint="Export to hf or pth instead.")
    for field in ("attention_factor", "mscale", "mscale_all_dim"):
        if getattr(scaling, field) is not None:
            raise UserError(
                f"GGUF cannot hold rope_scaling.{field} as transformers means it.", hint="Export to hf instead."
            )
    if scaling.truncate is False:
        raise UserError("GGUF cannot hold rope_scaling.truncate = false.", hint="Export to hf instead.")
    keys = {
        "type": scaling.rope_type,
        "factor": float(scaling.factor),
        "original_context_length": scaling.original_max_position_embeddings,
        "yarn_beta_fast": scaling.beta_fast and float(scaling.beta_fast),
        "yarn_beta_slow": scaling.beta_slow and float(scaling.beta_slow),
    }
    return {f"{_PREFIX}{key}": value for key, value in keys.items() if value is not None}, {}


def rope_from_gguf(file: GGUFFile, plain: LlamaConfig) -> RopeScaling | None:
    """The RopeScaling with which the config `plain` gives llama.cpp's angles. Raises ConfigError."""
    divisors = _divisors(file, plain.head_dim // 2)
    wanted, wanted_scale = _llama_cpp_frequencies(file, plain, divisors)
    for scaling in _candidates(file, plain, wanted):
        try:
            with np.errstate(all="ignore"):
                found, scale = rope_frequencies(plain.replace(rope_scaling=scaling))
        except (ArithmeticError, ValueError):  # no logarithm of such a theta or beta
            continue
        if np.allclose(found, wanted, rtol=_TOLERANCE, atol=0) and math.isclose(scale, wanted_scale, rel_tol=1e-5):
            return scaling
    given = {key: value for key, value in file.metadata.items() if "rope.scal" in key or key == OWN_ROPE_KEY}
    given |= {ROPE_FREQS: "a tensor"} if ROPE_FREQS in file.tensors else {}
    raise ConfigError(
        f"these RoPE keys together give angles that no kind of RoPE computed here has: {given!r:.400}.",
        hint="Convert the model from its Hugging Face folder instead.",
    )


def _llama_cpp_frequencies(file: GGUFFile, plain: LlamaConfig, divisors: np.ndarray) -> tuple[np.ndarray, float]:
    """What llama.cpp computes from the file: radians per position (K/2,), and the factor on cos and sin.

    Its loader, its context and ggml's rope_yarn combined. `ext` blends interpolation (0) and YaRN's ramp (1).
    """
    kind = _kind(file)
    factor = _factor(file, kind)
    ext = number(file, _PREFIX + "yarn_ext_factor", -1.0)
    if ext < 0:  # "not set"
        ext = 1.0 if kind == "yarn" else 0.0
    base = rope_frequencies(plain)[0] / divisors  # (K/2,)
    scale = number(file, _PREFIX + "attn_factor", 1.0)
    if ext == 0:
        return base / factor, scale
    if factor > 1:
        scale *= 0.1 * math.log(factor) + 1
    K, theta, original = plain.head_dim, plain.rope_theta, _original_context(file, plain)
    with np.errstate(all="ignore"):

        def pair_that_turns(times: float) -> np.float64:
            return K * np.log(np.float64(original) / (times * 2 * math.pi)) / (2 * np.log(np.float64(theta)))

        low = max(0.0, np.floor(pair_that_turns(number(file, _PREFIX + "yarn_beta_fast", 32.0))))
        high = min(K - 1.0, np.ceil(pair_that_turns(number(file, _PREFIX + "yarn_beta_slow", 1.0))))
        ramp = 1 - np.clip((np.arange(K // 2) - low) / max(0.001, high - low), 0, 1)
    return base / factor * (1 - ramp * ext) + base * ramp * ext, scale


def _candidates(file: GGUFFile, plain: LlamaConfig, wanted: np.ndarray) -> Iterator[RopeScaling | None]:
    """What the file may mean, the simplest first. The angles decide which it is."""
    own = file.metadata.get(OWN_ROPE_KEY)
    if own is not None and ROPE_FREQS in file.tensors:
        try:
            scaling = RopeScaling.from_dict(json.loads(own))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{OWN_ROPE_KEY} is damaged ({error!s:.100}).") from error
        if scaling is not None and scaling.rope_type == "llama3":
            yield scaling
    yield None
    kind = _kind(file)
    factor = _factor(file, kind)
    if factor > 1:
        yield RopeScaling(rope_type="linear", factor=factor)
    ratios = rope_frequencies(plain)[0] / wanted
    if ratios[0] > 1:
        yield RopeScaling(rope_type="linear", factor=float(str(np.float32(ratios[0]))))
    if factor > 1:
        yield _yarn(file, plain, factor)
    if ratios.max() > 1:  # the parameters of every published Llama 3
        yield RopeScaling(
            rope_type="llama3", factor=float(str(np.float32(ratios.max()))), low_freq_factor=1.0,
            high_freq_factor=4.0, original_max_position_embeddings=8192,
        )  # fmt: skip


def _yarn(file: GGUFFile, plain: LlamaConfig, factor: float) -> RopeScaling | None:
    fields: dict[str, Any] = {
        field: number(file, f"{_PREFIX}yarn_{field}")
        for field in ("beta_fast", "beta_slow")
        if f"{_PREFIX}yarn_{field}" in file.metadata
    }
    attention = number(file, _PREFIX + "attn_factor", 1.0)
    if attention != 1:
        fields["attention_factor"] = attention * (0.1 * math.log(factor) + 1)
    try:
        return RopeScaling(
            rope_type="yarn", factor=factor, original_max_position_embeddings=_original_context(file, plain), **fields
        )
    except ConfigError:  # an impossible value: it is not YaRN
        return None


def _kind(file: GGUFFile) -> str:
    kind = file.metadata.get(_PREFIX + "type", "linear")
    if not isinstance(kind, str) or kind not in ("none", "linear", "yarn"):
        raise ConfigError(f"{_PREFIX}type = {kind!r:.80} is not supported.", hint="Known: none, linear, yarn.")
    return kind


def _factor(file: GGUFFile, kind: str) -> float:
    """The factor in force. The old key is read only where the new one is missing."""
    old = number(file, "llama.rope.scale_linear", 0.0)
    factor = number(file, _PREFIX + "factor", old)
    if not 0 <= factor < math.inf:
        raise ConfigError(f"{_PREFIX}factor = {factor!r} is not a factor.")
    return 1.0 if kind == "none" or factor == 0 else factor


def _original_context(file: GGUFFile, plain: LlamaConfig) -> int:
    return integer(file, _PREFIX + "original_context_length", 0) or plain.max_position_embeddings


def _divisors(file: GGUFFile, pairs: int) -> np.ndarray:
    """(K/2,) by how much each frequency is divided; ones where the file does not say."""
    if ROPE_FREQS not in file.tensors:
        return np.ones(pairs)
    info = file.tensors[ROPE_FREQS]
    if info.kind != "F32" or info.shape != (pairs,):
        raise ConfigError(f"{ROPE_FREQS} is {info.kind} {info.shape}, not F32 ({pairs},).")
    divisors = file.blocks(ROPE_FREQS).view("<f4")[0].astype(np.float64)
    if not np.isfinite(divisors).all() or not np.all(divisors > 0):
        raise ConfigError(f"{ROPE_FREQS} divides a frequency by {divisors.min()}.")
    return divisors
