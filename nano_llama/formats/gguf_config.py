"""A model's shape, between GGUF's metadata (`llama.*` keys) and LlamaConfig.

What would change the mathematics is refused by name, as in core/config.py: other architectures, experts, soft caps.
RoPE: linear and YaRN are keys; llama3 is a tensor of divisors, from which its four parameters are found again;
dynamic NTK has no word in GGUF.

Not here: the tokenizer's keys (tokenizer/gguf.py). Tests: tests/formats/test_gguf_config.py.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig, RopeScaling
from nano_llama.core.errors import ConfigError, FormatError, UserError
from nano_llama.core.rope import rope_frequencies
from nano_llama.formats.gguf_names import OUTPUT, ROPE_FREQS, TOKEN_EMBEDDING
from nano_llama.formats.gguf_reader import GGUFFile

OWN_ROPE_KEY = "nano_llama.rope_scaling"  # JSON; GGUF has no key for llama3's parameters

# llama.* keys under which the model would compute something else, with the values under which it would not.
_MUST_BE: dict[str, tuple[Any, ...]] = {
    "llama.expert_count": (0,),
    "llama.logit_scale": (0.0, 1.0),
    "llama.embedding_scale": (0.0, 1.0),
    "llama.residual_scale": (0.0, 1.0),
    "llama.attention.scale": (0.0,),
    "llama.attn_logit_softcapping": (0.0,),
    "llama.final_logit_softcapping": (0.0,),
    "llama.attention.sliding_window": (0,),
    "llama.attention.clamp_kqv": (0.0,),
    "llama.attention.causal": (True,),
    "llama.use_parallel_residual": (False,),
    "llama.rope.scaling.attn_factor": (0.0, 1.0),
    "llama.rope.scaling.yarn_attn_factor": (1.0,),
    "llama.rope.scaling.yarn_ext_factor": (1.0,),
}
_END_KEYS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def config_from_gguf(file: GGUFFile) -> LlamaConfig:
    """Raises FormatError for a missing key, ConfigError for what is not a LLaMA of ours; both name file and key."""
    source, metadata = str(file.path), file.metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture != "llama":
        raise ConfigError(
            f"{source}: the architecture {architecture!r:.80} is not a LLaMA.",
            hint="This project runs general.architecture 'llama' only: others differ in their mathematics.",
        )
    for key, harmless in _MUST_BE.items():
        if key in metadata and not _is_one_of(metadata[key], harmless):
            raise ConfigError(
                f"{source}: {key} = {metadata[key]!r:.80} changes the mathematics; it is not computed here."
            )
    if not _is_one_of(metadata.get("split.count", 0), (0, 1)):
        raise FormatError(
            f"{source} is one of {metadata['split.count']!r:.20} parts.",
            hint="Join them with llama-gguf-split --merge.",
        )
    if TOKEN_EMBEDDING not in file.tensors:
        raise FormatError(f"{source} lacks the tensor {TOKEN_EMBEDDING}.", hint="Does it hold a whole model?")

    heads = _integer(file, "llama.attention.head_count")
    width = _integer(file, "llama.embedding_length")
    head_dim = _integer(file, "llama.attention.key_length", width // max(1, heads))
    for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if _integer(file, key, head_dim) != head_dim:
            raise ConfigError(f"{source}: {key} = {metadata[key]!r} differs from the head's {head_dim} dimensions.")
    fields: dict[str, Any] = {
        "vocab_size": file.tensors[TOKEN_EMBEDDING].shape[0],
        "hidden_size": width,
        "intermediate_size": _integer(file, "llama.feed_forward_length"),
        "num_hidden_layers": _integer(file, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _integer(file, "llama.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": _integer(file, "llama.context_length"),
        "rms_norm_eps": _number(file, "llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": _number(file, "llama.rope.freq_base", 10000.0),
        "tie_word_embeddings": OUTPUT not in file.tensors,
        "bos_token_id": _token(metadata, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _end_tokens(metadata),
        "pad_token_id": _token(metadata, "tokenizer.ggml.padding_token_id"),
    }
    try:
        plain = LlamaConfig(**fields)
        return plain.replace(rope_scaling=_rope_scaling(file, plain))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.message}", hint=error.hint) from None


def config_to_gguf(config: LlamaConfig, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """-> metadata, and the tensors that belong to it (RoPE's divisors). Raises UserError for what GGUF cannot hold."""
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": name,
        "llama.vocab_size": config.vocab_size,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.block_count": config.num_hidden_layers,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": float(config.rope_theta),
    }
    if len(config.eos_token_ids) > len(_END_KEYS):
        raise UserError(f"eos_token_id = {list(config.eos_token_ids)}: a GGUF holds at most {len(_END_KEYS)} of them.")
    ids = [
        ("tokenizer.ggml.bos_token_id", config.bos_token_id),
        ("tokenizer.ggml.padding_token_id", config.pad_token_id),
    ]
    ids += list(zip(_END_KEYS, config.eos_token_ids, strict=False))
    metadata |= {key: token for key, token in ids if token is not None and token >= 0}
    rope, tensors = _rope_to_gguf(config)
    return metadata | rope, tensors


# -- RoPE -------------------------------------------------------------------------------------------------------------


def _rope_to_gguf(config: LlamaConfig) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    scaling = config.rope_scaling
    if scaling is None:
        return {}, {}
    if scaling.rope_type == "llama3":
        return {OWN_ROPE_KEY: json.dumps(scaling.to_dict())}, {ROPE_FREQS: _divisors(config)}
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
    return {f"llama.rope.scaling.{key}": value for key, value in keys.items() if value is not None}, {}


def _rope_scaling(file: GGUFFile, plain: LlamaConfig) -> RopeScaling | None:
    prefix, metadata = "llama.rope.scaling.", file.metadata
    kind = metadata.get(prefix + "type", "none")
    if not isinstance(kind, str) or kind not in ("none", "linear", "yarn"):
        raise ConfigError(f"{prefix}type = {kind!r:.80} is not one we compute.", hint="Known: none, linear, yarn.")
    linear = _number(file, "llama.rope.scale_linear", 1.0)  # the key of 2023
    factor = _number(file, prefix + "factor", linear)
    if ROPE_FREQS in file.tensors:
        return _llama3_from_divisors(file, plain)
    if kind == "yarn":
        original = _integer(file, prefix + "original_context_length", plain.max_position_embeddings)
        betas: dict[str, Any] = {
            field: _number(file, f"{prefix}yarn_{field}")
            for field in ("beta_fast", "beta_slow")
            if f"{prefix}yarn_{field}" in metadata
        }
        return RopeScaling(rope_type="yarn", factor=factor, original_max_position_embeddings=original, **betas)
    if kind == "linear" or (kind == "none" and linear != 1.0):
        return None if factor in (0.0, 1.0) else RopeScaling(rope_type="linear", factor=factor)
    return None


def _divisors(config: LlamaConfig) -> np.ndarray:
    """(K/2,) float32: by how much each frequency is divided."""
    return (rope_frequencies(config.replace(rope_scaling=None))[0] / rope_frequencies(config)[0]).astype(np.float32)


def _llama3_from_divisors(file: GGUFFile, plain: LlamaConfig) -> RopeScaling | None:
    """The parameters are ours where we wrote the file, else those of every published Llama 3; the divisors decide."""
    info = file.tensors[ROPE_FREQS]
    if info.kind != "F32" or info.shape != (plain.head_dim // 2,):
        raise ConfigError(f"{ROPE_FREQS} is {info.kind} {info.shape}, not F32 ({plain.head_dim // 2},).")
    divisors = file.blocks(ROPE_FREQS).view("<f4")[0]  # (K/2,)
    if np.all(divisors == 1):
        return None
    if not np.all(divisors >= 1) or not np.isfinite(divisors).all():
        raise ConfigError(f"{ROPE_FREQS} divides a frequency by {divisors.min()}: not RoPE of the kind llama3.")
    published = {
        "rope_type": "llama3", "factor": float(divisors.max()), "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    try:
        given = json.loads(file.metadata.get(OWN_ROPE_KEY, "null")) or published
        scaling = RopeScaling(**given)
        agrees = np.allclose(_divisors(plain.replace(rope_scaling=scaling)), divisors, rtol=1e-4)
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{OWN_ROPE_KEY} is damaged ({error!s:.100}).") from error
    if not agrees:
        raise ConfigError(
            f"{ROPE_FREQS} does not belong to RoPE of the kind llama3 with {scaling.to_dict()}.",
            hint="Convert the model from its Hugging Face folder instead.",
        )
    return scaling


# -- single keys ------------------------------------------------------------------------------------------------------


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """A file may hold an array where a number belongs, and NumPy has no truth for comparing one."""
    return isinstance(value, bool | int | float) and value in allowed


def _integer(file: GGUFFile, key: str, default: int | None = None) -> int:
    value = file.metadata.get(key, default)
    if type(value) is not int:
        what = "is missing" if value is None else f"= {value!r:.80} is not one whole number"
        raise FormatError(f"{file.path}: the metadata {key} {what}.")
    return value


def _number(file: GGUFFile, key: str, default: float | None = None) -> float:
    """A float32 as the shortest decimal that means it: 1e-05, not 9.999999747378752e-06."""
    value = file.metadata.get(key, default)
    if type(value) not in (int, float):
        what = "is missing" if value is None else f"= {value!r:.80} is not a number"
        raise FormatError(f"{file.path}: the metadata {key} {what}.")
    return float(str(np.float32(value)))


def _token(metadata: Mapping[str, Any], key: str) -> int | None:
    value = metadata.get(key)
    return value if type(value) is int else None


def _end_tokens(metadata: Mapping[str, Any]) -> int | tuple[int, ...] | None:
    """Every id that ends a text: of the text, of the turn, of the message."""
    ids = tuple(dict.fromkeys(token for key in _END_KEYS if (token := _token(metadata, key)) is not None))
    return ids if len(ids) > 1 else (ids[0] if ids else None)
