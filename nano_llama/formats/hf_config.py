"""A model's shape, between Hugging Face's config.json and LlamaConfig.

What a LLaMA of ours does not compute (biases, exact GELU, other architectures) is refused by name: a wrong model that
runs is worse than one that does not. So the architecture says who else can compute a model:

    llama        LlamaForCausalLM, any hidden_act
    mistral      MistralForCausalLM: with a sliding_window
    nano-llama   with another norm_placement, which no architecture of transformers has; only this project reads it

Not here: the files of the folder (hf_folder.py). Tests: tests/formats/test_hf_config.py.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

from nano_llama.core.config import ROPE_KINDS, LlamaConfig, RopeScaling, rope_fields
from nano_llama.core.errors import ConfigError

# Written by transformers beside the shape; they change nothing in the forward pass.
_BOOKKEEPING = {
    *("architectures", "model_type", "dtype", "torch_dtype", "transformers_version", "transformers.js_config"),
    *("_name_or_path", "name_or_path", "auto_map", "tokenizer_class", "unsloth_fixed", "unsloth_version"),
    *("use_cache", "output_attentions", "output_hidden_states", "return_dict", "_attn_implementation"),
    *("attention_dropout", "pretraining_tp", "chunk_size_feed_forward", "is_llama_config", "is_decoder"),
    *("is_encoder_decoder", "id2label", "label2id", "problem_type", "max_length", "temperature", "top_k", "top_p"),
    "transformers_weights",  # weight_files.py reads it
}

# Keys that would change the mathematics, with the one value under which they do not.
_MUST_BE: dict[str, Any] = {
    "attention_bias": False,
    "mlp_bias": False,
    "rope_interleaved": False,
    "partial_rotary_factor": 1.0,
    "num_local_experts": None,
    "logit_scale": 1.0,
    "residual_multiplier": 1.0,
    "embedding_multiplier": 1.0,
    "attention_multiplier": None,
    "logits_scaling": 1.0,
    "final_logit_softcapping": None,
    "attn_logit_softcapping": None,
    "use_qk_norm": False,
    "is_causal": True,
    "add_cross_attention": False,
}

# model_type -> the class's name, in transformers where that has it; and the values that it has where others have more.
_ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "nano-llama": "NanoLlamaForCausalLM"}
_NOT_IN: dict[str, dict[str, Any]] = {
    "llama": {"sliding_window": None, "norm_placement": "pre"},
    "mistral": {"norm_placement": "pre"},
    "nano-llama": {},
}

QUANT_METHOD = "nano-llama"  # whose quantized folders are read: formats/quantized.py


def config_from_hf(raw: Mapping[str, Any], source: str = "config.json") -> LlamaConfig:
    """Build from transformers' dictionary. `source` names the file in messages.

    Reads `rope_theta` with `rope_scaling` (transformers 4) and `rope_parameters` (5) alike. Bookkeeping keys are
    ignored, unknown keys are warned about, and keys that would change the mathematics are refused (ConfigError).
    """
    kind = _refuse_other_models(raw, source)
    given = {key: value for key, value in raw.items() if value is not None}
    if given.get("hidden_act") == "swish":  # silu's other name
        given["hidden_act"] = "silu"
    if kind == "mistral" and "num_key_value_heads" not in raw:
        given["num_key_value_heads"] = 8  # transformers' default there
    rope = given.pop("rope_scaling", None) or given.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        raise ConfigError(f"{source}: rope_scaling = {rope!r:.80}: an object was expected.")
    rope = dict(rope)
    given.pop("rope_parameters", None)
    theta = rope.pop("rope_theta", None)
    if theta is not None:
        given["rope_theta"] = theta

    fields = {field.name for field in dataclasses.fields(LlamaConfig)}
    for key in sorted(given.keys() - fields - _BOOKKEEPING - _MUST_BE.keys() - {"quantization_config", _ORIGINAL}):
        warnings.warn(f"{source}: the key {key!r} is unknown and ignored (value {given[key]!r:.80}).", stacklevel=3)
    required = {f.name for f in dataclasses.fields(LlamaConfig) if f.default is dataclasses.MISSING}
    missing = sorted(required - given.keys())
    if missing:
        raise ConfigError(f"{source}: {', '.join(missing)} missing.", hint="Is this the config.json of a LLaMA?")
    given.setdefault("rms_norm_eps", 1e-6)  # transformers' default, which is not ours
    try:
        if rope:
            given["rope_scaling"] = _rope_scaling(rope, given, source)
        return LlamaConfig(**{key: value for key, value in given.items() if key in fields})
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.message}", hint=error.hint) from None


def config_to_hf(config: LlamaConfig) -> dict[str, Any]:
    """The dictionary that every version of transformers reads as a `LlamaForCausalLM`, or, where it has a sliding
    window, as a `MistralForCausalLM`. Another norm_placement makes it one that transformers refuses by name.
    """
    own: dict[str, Any] = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for name in ("rms_norm_eps", "initializer_range"):  # transformers 5 accepts no integers here
        own[name] = float(own[name])
    own["rope_scaling"] = config.rope_scaling.to_dict() if config.rope_scaling else None
    if isinstance(config.eos_token_id, tuple):
        own["eos_token_id"] = list(config.eos_token_id)
    kind = next(kind for kind, absent in _NOT_IN.items() if all(own[name] == value for name, value in absent.items()))
    return {
        "architectures": [_ARCHITECTURES[kind]],
        "model_type": kind,
        "hidden_act": config.hidden_act,
        "attention_bias": False,
        "mlp_bias": False,
        **{name: value for name, value in own.items() if name not in _NOT_IN[kind]},
    }


def _refuse_other_models(raw: Mapping[str, Any], source: str) -> str:
    """-> the model_type, one of ours."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source}: a JSON object was expected, got {type(raw).__name__}.")
    kind = raw.get("model_type")
    if kind is None:
        architectures = raw.get("architectures")
        names = architectures if isinstance(architectures, list) else []
        kind = next((kind for kind, name in _ARCHITECTURES.items() if name in names), f"{architectures!r:.80}")
    if not isinstance(kind, str) or kind not in _ARCHITECTURES:
        raise ConfigError(
            f"{source}: the architecture {kind!r:.80} is not a LLaMA.",
            hint="This project runs model_type 'llama', and 'mistral' with a sliding_window: others differ in their"
            " mathematics.",
        )
    if kind == "mistral" and "sliding_window" not in raw:
        raise ConfigError(
            f"{source}: model_type 'mistral' without a sliding_window, where transformers takes one of 4,096.",
            hint='Say "sliding_window": 4096, or null for none.',
        )
    quantized = raw.get("quantization_config")
    method = quantized.get("quant_method", "another program") if isinstance(quantized, Mapping) else quantized
    if quantized is not None and method != QUANT_METHOD:
        raise ConfigError(
            f"{source}: quantization_config: its weights are quantized by {method!r:.80}, which is not read here.",
            hint="Take the model's unquantized folder, or a .gguf.",
        )
    for key, harmless in (_MUST_BE | _NOT_IN[kind]).items():
        value = raw.get(key, harmless)
        if value != harmless and value is not None:
            raise ConfigError(
                f"{source}: {key} = {value!r:.80} changes the mathematics; a {kind} computes {key} = {harmless!r} only."
            )
    return kind


def _rope_scaling(raw: Mapping[str, Any], given: Mapping[str, Any], source: str) -> RopeScaling | None:
    """From transformers' `rope_scaling` or `rope_parameters`, in which old files say `type` for `rope_type`.

    given: the config around it. As transformers does: a kind's other keys are ignored, with a warning; 0 counts as
    missing where there is a default; llama3 and YaRN take the original context from the config, else its
    max_position_embeddings.
    """
    rope = {key: value for key, value in raw.items() if value is not None}
    old_kind = rope.pop("type", None)
    kind = rope.pop("rope_type", "default" if old_kind is None else old_kind)
    if not isinstance(kind, str) or not kind:
        raise ConfigError(f"rope_scaling: rope_type = {kind!r:.80} is not the name of a kind.")
    partial = rope.pop("partial_rotary_factor", 1.0)
    if partial != 1.0:
        raise ConfigError(f"rope_scaling: partial_rotary_factor = {partial!r}: only whole heads are rotated here.")
    if kind in ("yarn", "llama3"):
        if given.get(_ORIGINAL) is not None:
            rope[_ORIGINAL] = given[_ORIGINAL]
        elif given.get("max_position_embeddings") is not None:
            rope.setdefault(_ORIGINAL, given["max_position_embeddings"])
        if isinstance(rope.get(_ORIGINAL), float) and rope[_ORIGINAL].is_integer():
            rope[_ORIGINAL] = int(rope[_ORIGINAL])
    if kind in ROPE_KINDS:
        used = rope_fields(kind)
        rope = {key: value for key, value in rope.items() if value != 0 or key not in _OR_DEFAULT}
        if extra := sorted(map(str, rope.keys() - set(used))):
            named = ", ".join(f"{key} = {rope.get(key)!r:.60}" for key in extra[:6])
            warnings.warn(f"{source}: RoPE of the kind {kind!r} ignores {named}.", stacklevel=4)
        rope = {key: value for key, value in rope.items() if key in used}
    return RopeScaling.from_dict({"rope_type": kind, **rope})


_ORIGINAL = "original_max_position_embeddings"
_OR_DEFAULT = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")


def transformers_refusals(config: LlamaConfig) -> list[str]:
    """Why transformers 5 refuses a model of this shape; transformers 4, GGUF and this project accept it."""
    reasons = []
    if config.hidden_size % config.num_attention_heads:
        heads = config.num_attention_heads
        reasons.append(f"hidden_size = {config.hidden_size} is not a multiple of num_attention_heads = {heads}")
    if config.initializer_range > 1:
        reasons.append(f"initializer_range = {config.initializer_range} is above 1")
    pad = config.pad_token_id
    if pad is not None and not -config.vocab_size <= pad < config.vocab_size:
        reasons.append(f"pad_token_id = {pad} is not one of the {config.vocab_size} tokens")
    return reasons
