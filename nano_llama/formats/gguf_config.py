"""A model's shape, between GGUF's metadata (`llama.*` keys) and LlamaConfig.

What would change the mathematics is refused by name, as in hf_config.py: other architectures, experts, soft caps.

Not here: RoPE's keys (gguf_rope.py), the tokenizer's (tokenizer/gguf.py). Tests: tests/formats/test_gguf_config.py.
"""

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import ConfigError, FormatError, UserError
from nano_llama.core.rope import rope_frequencies
from nano_llama.core.variants import require_llama
from nano_llama.formats.gguf_names import OUTPUT, TOKEN_EMBEDDING
from nano_llama.formats.gguf_reader import GGUFFile
from nano_llama.formats.gguf_rope import rope_from_gguf, rope_to_gguf
from nano_llama.formats.gguf_values import integer, integer_of_layers, is_one_of, number, token_id

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
    "llama.rope.scaling.yarn_attn_factor": (1.0,),
    "llama.rope.scaling.yarn_log_multiplier": (0.0,),
    "llama.rope.scaling.alpha": (0.0,),
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
        if key in metadata and not is_one_of(metadata[key], harmless):
            raise ConfigError(
                f"{source}: {key} = {metadata[key]!r:.80} changes the mathematics; it is not computed here."
            )
    if TOKEN_EMBEDDING not in file.tensors:
        raise FormatError(f"{source} lacks the tensor {TOKEN_EMBEDDING}.", hint="Does it hold a whole model?")

    layers = integer(file, "llama.block_count")
    heads = integer_of_layers(file, "llama.attention.head_count", layers)
    width = integer(file, "llama.embedding_length")
    head_dim = integer(file, "llama.attention.key_length", width // max(1, heads))
    for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if integer(file, key, head_dim) != head_dim:
            raise ConfigError(f"{source}: {key} = {metadata[key]!r} differs from the head's {head_dim} dimensions.")
    vocab = file.tensors[TOKEN_EMBEDDING].shape[0]
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and len(tokens) != vocab:
        warnings.warn(
            f"{source}: a tokenizer of {len(tokens):,} tokens for an embedding of {vocab:,} rows;"
            " llama.cpp does not load such a file.",
            stacklevel=2,
        )
    fields: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": integer_of_layers(file, "llama.feed_forward_length", layers),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": integer_of_layers(file, "llama.attention.head_count_kv", layers, heads),
        "head_dim": head_dim,
        "max_position_embeddings": integer(file, "llama.context_length"),
        "rms_norm_eps": number(file, "llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": number(file, "llama.rope.freq_base", 10000.0),
        "tie_word_embeddings": OUTPUT not in file.tensors,
        "bos_token_id": token_id(file, "tokenizer.ggml.bos_token_id", vocab),
        "eos_token_id": _end_tokens(file, vocab),
        "pad_token_id": token_id(file, "tokenizer.ggml.padding_token_id", vocab),
    }
    try:
        plain = LlamaConfig(**fields)
        return plain.replace(rope_scaling=rope_from_gguf(file, plain))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.message}", hint=error.hint) from None


def config_to_gguf(config: LlamaConfig, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """-> metadata, and the tensors that belong to it (RoPE's divisors). Raises UserError for what GGUF cannot hold."""
    require_llama(config, "GGUF's architecture llama", hint="--format hf holds an activation or a window, pth any.")
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
    for key, token in ids:
        if token is not None and 0 <= token < config.vocab_size:
            metadata[key] = token
        elif token is not None and token >= config.vocab_size:
            warnings.warn(
                f"{key} = {token} is not written: it is none of the {config.vocab_size:,} tokens.", stacklevel=3
            )
    rope, tensors = rope_to_gguf(config)
    return metadata | rope, tensors


def keep_end_ids(metadata: dict[str, Any], config: LlamaConfig) -> None:
    """Where a tokenizer's EOS took the place of one of the config's ids, give that another key. Raises UserError."""
    for token in config.eos_token_ids:
        held = [metadata.get(key) for key in _END_KEYS]
        if token in held or not 0 <= token < config.vocab_size:
            continue
        free = [key for place, key in enumerate(_END_KEYS) if held[place] is None or held[place] in held[:place]]
        if not free:
            raise UserError(
                f"A GGUF holds at most {len(_END_KEYS)} ids that end a text: {held}, and {token} of the config."
            )
        metadata[free[0]] = token


def check_written(path: Path, config: LlamaConfig) -> None:
    """Read the file's config back and compare it with the one that was meant. Raises UserError where it differs."""
    file = GGUFFile(path)
    try:
        _check_vocabulary(file, config.vocab_size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the writers have said it
            found = config_from_gguf(file)
    except ConfigError as error:
        raise UserError(f"GGUF cannot hold this model: {error.message}", hint=_INSTEAD) from error
    finally:
        file.close()
    for field in dataclasses.fields(config):
        ours, theirs = getattr(config, field.name), getattr(found, field.name)
        if field.name in _NOT_COMPARED or ours == theirs:
            continue
        if field.name == "eos_token_id":
            alike = {token for token in config.eos_token_ids if 0 <= token < config.vocab_size} <= {
                *found.eos_token_ids
            }
        elif field.name == "rope_scaling":
            (frequencies, scale), (read, read_scale) = rope_frequencies(config), rope_frequencies(found)
            alike = np.allclose(frequencies, read, rtol=1e-5, atol=0) and math.isclose(scale, read_scale, rel_tol=1e-5)
        else:  # a float is a float32 in the file
            alike = isinstance(ours, float) and math.isclose(ours, theirs, rel_tol=1e-6)
        if not alike:
            said = f"{field.name} = {ours!r:.80} would be read as {theirs!r:.80}"
            raise UserError(f"GGUF cannot hold this model: {said}.", hint=_INSTEAD)


# Of fresh weights alone; and of the tokenizer, where it has one of its own.
_NOT_COMPARED = ("initializer_range", "bos_token_id", "pad_token_id")
_INSTEAD = "Export to hf or pth instead."


def _check_vocabulary(file: GGUFFile, rows: int) -> None:
    """llama.cpp loads a file only if it has as many tokens as its embedding has rows."""
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or len(tokens) == rows:
        return
    message = f"The tokenizer has {len(tokens):,} tokens, but the model's embedding {rows:,} rows"
    if len(tokens) > rows:
        raise UserError(f"{message}.", hint="Give the tokenizer that belongs to the model, or none.")
    warnings.warn(f"{message}: llama.cpp does not load such a file.", stacklevel=6)


def _end_tokens(file: GGUFFile, count: int) -> int | tuple[int, ...] | None:
    """Every id that ends a text: end of text, of turn, of message."""
    ids = tuple(dict.fromkeys(token for key in _END_KEYS if (token := token_id(file, key, count)) is not None))
    return ids if len(ids) > 1 else (ids[0] if ids else None)
