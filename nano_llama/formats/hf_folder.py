"""A Hugging Face model folder: config.json, weights in safetensors (one file or shards), tokenizer files.

    config.json                      the shape (hf_config.py)
    model.safetensors                or  model-00001-of-00003.safetensors ... with model.safetensors.index.json
    pytorch_model.bin                older: read where there is no safetensors (weight_files.py says which file counts)
    generation_config.json, tokenizer.json, tokenizer_config.json ...      written for transformers

Not here: the bytes of those weight files (safetensors.py, pth.py) and the tokenizer (tokenizer).
Tests: tests/formats/test_hf_folder.py.
"""

import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import ConfigError, FormatError
from nano_llama.core.files import atomic_folder, read_json, write_json
from nano_llama.core.init import check_params
from nano_llama.formats.dtypes import DTYPES, HF_NAMES, float_name
from nano_llama.formats.hf_config import config_from_hf, transformers_refusals
from nano_llama.formats.mapping import TensorMapping, as_mapping, fit_to_config
from nano_llama.formats.quantized import QuantizedFolder, blocks_of
from nano_llama.formats.safetensors import save_safetensors, saved_dtype
from nano_llama.formats.vision_config import is_vision_language
from nano_llama.formats.weight_files import INDEX, WEIGHTS, open_weight_files

CONFIG = "config.json"
MAX_SHARD_BYTES = 5 * 10**9
_GENERATION_CONFIG = "generation_config.json"
_MAX_CONFIG_BYTES = 2**20


def read_folder_config(folder: Path) -> LlamaConfig:
    """A folder's LlamaConfig. Raises UserError where config.json is missing, ConfigError where it is not a LLaMA's."""
    return _llama_config(folder, read_config_json(folder))


def _llama_config(folder: Path, raw: Any) -> LlamaConfig:
    source = str(folder / CONFIG)
    if is_vision_language(raw):
        raise ConfigError(
            f"{source}: the architecture {raw['model_type']!r} is not a LLaMA alone: it reads images.",
            hint="generate --image, chat, serve, eval, info, quantize, merge and export --format hf take it; so does"
            " train --data shapes-vqa --init-from. See docs/pictures.md.",
        )
    return config_from_hf(raw, source)


def read_config_json(folder: Path) -> Any:
    """The content of a folder's config.json. Raises UserError where there is none, FormatError where it is not JSON."""
    return read_json(folder / CONFIG, what="model config", max_bytes=_MAX_CONFIG_BYTES)


def open_folder(folder: Path) -> TensorMapping:
    """The folder's weights, checked against its config.json. Raises FormatError, ConfigError or UserError."""
    raw = read_config_json(folder)
    config = _llama_config(folder, raw)
    blocks = blocks_of(raw)
    weights = open_weight_files(folder, raw)
    return fit_to_config(weights if blocks is None else QuantizedFolder(folder, weights, blocks), config)


def save_hf(
    folder: str | Path,
    config: LlamaConfig,
    weights: Mapping[str, np.ndarray],
    tokenizer: Any = None,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    generation_config: Mapping[str, Any] | None = None,
    check: Callable[[Path], None] = lambda written: None,
) -> None:
    """Write a folder that transformers' AutoModelForCausalLM loads, with at most one tensor in memory.

    dtype: "F32", "F16" or "BF16" (or "float16" ...); None keeps each tensor's own type, so that what was read comes out
    bit-identical (quantized tensors become F32, which holds them exactly). tokenizer: a Tokenizer. generation_config:
    what another folder says there (read_generation_config), kept as it is. check: is handed the folder that was written
    before it takes its name; where it raises there is none.
    The folder must not exist; a kill leaves nothing under its name. Raises UserError, FormatError, EnvironmentFault.
    """
    source = as_mapping(weights)
    check_params(config, source, source=str(source.path))
    for reason in transformers_refusals(config):
        warnings.warn(f"transformers 5 will not load this model: {reason}. Its version 4 does.", stacklevel=2)
    write_folder(
        folder, config.to_hf_dict(), config, source, tokenizer=tokenizer, dtype=dtype, max_shard_bytes=max_shard_bytes,
        generation_config=generation_config, check=check,
    )  # fmt: skip


def write_folder(
    folder: str | Path,
    content: Mapping[str, Any],
    text_config: LlamaConfig,
    source: TensorMapping,
    *,
    tokenizer: Any = None,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    generation_config: Mapping[str, Any] | None = None,
    check: Callable[[Path], None] = lambda written: None,
    extra_files: Iterable[Path] = (),
) -> None:
    """save_hf's files, for weights that were checked; content: what config.json is to say. extra_files: are copied
    beside them.
    """
    wanted = None if dtype is None else float_name(dtype)
    stored = {name: saved_dtype(source, name, wanted) for name in source}
    counts = {name: int(np.prod(source.shape(name))) for name in source}
    sizes = {name: count * DTYPES[stored[name]].itemsize for name, count in counts.items()}
    with atomic_folder(folder) as temporary:
        write_json(temporary / CONFIG, {**content, "dtype": _most_common_dtype(stored, sizes)})
        write_json(temporary / _GENERATION_CONFIG, _generation_config(text_config) | dict(generation_config or {}))
        shards = _split(sizes, max_shard_bytes)
        if len(shards) == 1:
            save_safetensors(temporary / WEIGHTS, source, dtype=wanted)
        else:
            weight_map: dict[str, str] = {}
            for number, names in enumerate(shards, start=1):
                file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
                save_safetensors(temporary / file, source, names=names, dtype=wanted)
                weight_map |= dict.fromkeys(names, file)
            total = {"total_size": sum(sizes.values()), "total_parameters": sum(counts.values())}
            write_json(temporary / INDEX, {"metadata": total, "weight_map": weight_map})
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        for extra in extra_files:
            shutil.copyfile(extra, temporary / extra.name)
        check(temporary)


def _split(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in order, cut into shards of at most `limit` bytes; a larger tensor has a shard to itself."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _most_common_dtype(stored: Mapping[str, str], sizes: Mapping[str, int]) -> str:
    """What config.json calls the model's type: the one with the most bytes."""
    bytes_of = dict.fromkeys(stored.values(), 0)
    for name, dtype in stored.items():
        bytes_of[dtype] += sizes[name]
    return HF_NAMES.get(max(bytes_of, key=lambda dtype: bytes_of[dtype]), "float32")


def read_generation_config(path: Path) -> dict[str, Any]:
    """What a model's folder says about generating, every id that ends a text among it; {} where it does not."""
    file = path / _GENERATION_CONFIG
    if not file.is_file():
        return {}
    raw = read_json(file, what="generation config", max_bytes=_MAX_CONFIG_BYTES)
    if not isinstance(raw, dict):
        raise FormatError(f"{file} holds a {type(raw).__name__}, not an object.")
    return raw


def _generation_config(config: LlamaConfig) -> dict[str, Any]:
    """The ids that start and end a text, where transformers' generate() looks for them."""
    full = config.to_hf_dict()
    return {key: full[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if full[key] is not None}
