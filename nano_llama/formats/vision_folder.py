"""A folder whose model reads images: as a LLaMA's (hf_folder.py), with an Idefics3's config.json and names.

Tests: tests/formats/test_vision_folder.py.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.errors import FormatError
from nano_llama.core.names import EMBED, LM_HEAD, parameter_shapes
from nano_llama.core.vision.config import VisionLanguageConfig
from nano_llama.core.vision.init import check_vision_language_params
from nano_llama.core.vision.names import text_name, vision_shapes
from nano_llama.formats.hf_folder import CONFIG, read_config_json, write_folder
from nano_llama.formats.mapping import Selection, TensorMapping, as_mapping, same_tensor
from nano_llama.formats.quantized import QuantizedFolder, blocks_of, write_quantized
from nano_llama.formats.vision_config import is_vision_language, vision_language_from_hf, vision_language_to_hf
from nano_llama.formats.weight_files import open_weight_files


def read_vision_language_config(folder: Path) -> VisionLanguageConfig:
    """Raises UserError where config.json is missing, ConfigError where it is not that of a model with images."""
    return vision_language_from_hf(read_config_json(folder), source=str(folder / CONFIG))


def open_vision_language(folder: Path) -> tuple[VisionLanguageConfig, TensorMapping]:
    """The shape, and the weights checked against it, read tensor by tensor. A context manager closes the weights.

    A tied model's file may store the head again: an equal copy is left out, a different one refused.
    Raises FormatError, ConfigError or UserError.
    """
    raw = read_config_json(folder)
    config = vision_language_from_hf(raw, source=str(folder / CONFIG))
    weights, blocks = open_weight_files(folder, raw), blocks_of(raw)
    if blocks is not None:
        weights = QuantizedFolder(folder, weights, blocks)
    if config.text_config.tie_word_embeddings and LM_HEAD in weights:
        embedding = text_name(EMBED)
        if embedding not in weights or not same_tensor(weights, embedding, weights, LM_HEAD):
            raise FormatError(
                f"{weights.path}: the config says tie_word_embeddings = true, but {LM_HEAD} is not {embedding}.",
                hint='If the head is meant to be its own, set "tie_word_embeddings": false in config.json.',
            )
        weights = Selection(weights.path, {name: weights for name in weights if name != LM_HEAD})
    check_vision_language_params(config, weights, source=str(weights.path))
    return config, weights


def reads_images(path: Path) -> bool:
    """Whether it is the folder of a model with an image encoder. Raises FormatError where its config is not JSON."""
    return (path / CONFIG).is_file() and is_vision_language(read_config_json(path))


def open_language_model(folder: Path) -> TensorMapping:
    """The LLaMA within such a folder, under its own names: `.config` is the text_config. Raises as the whole does."""
    config, weights = open_vision_language(folder)
    names = parameter_shapes(config.text_config)
    text = Selection(weights.path, dict.fromkeys(names, weights), {name: text_name(name) for name in names})
    text.known_config = config.text_config
    return text


def with_language_model(
    config: VisionLanguageConfig, weights: TensorMapping, llama: TensorMapping
) -> tuple[VisionLanguageConfig, TensorMapping]:
    """The same encoder and projector before another LLaMA, which has its own names and its own `.config`."""
    config = config.replace(text_config=llama.config)
    names = {text_name(name): name for name in parameter_shapes(llama.config)}  # here -> the LLaMA's
    sources = dict.fromkeys(vision_shapes(config), weights) | dict.fromkeys(names, llama)
    return config, Selection(weights.path, sources, names)


def save_vision_language(
    folder: str | Path,
    config: VisionLanguageConfig,
    weights: Mapping[str, np.ndarray],
    tokenizer: Any = None,
    dtype: str | None = None,
    kinds: Mapping[str, str] | None = None,
    scheme: str = "",
    extra_files: Iterable[Path] = (),
    generation_config: Mapping[str, Any] | None = None,
    check: Callable[[Path], None] = lambda written: None,
) -> None:
    """Write a folder that transformers' Idefics3ForConditionalGeneration loads. The arguments are those of save_hf.

    kinds and scheme, in place of dtype: those of save_quantized, for a folder that is read here alone.
    extra_files: are copied beside them, such as those of the image processor.
    """
    source = as_mapping(weights)
    check_vision_language_params(config, source, source=str(source.path))
    if kinds is not None:
        assert dtype is generation_config is None, "kinds say how each matrix is stored"
        write_quantized(folder, vision_language_to_hf(config), source, kinds, tokenizer, scheme, extra_files)
        return
    write_folder(
        folder, vision_language_to_hf(config), config.text_config, source, tokenizer=tokenizer, dtype=dtype,
        extra_files=extra_files, generation_config=generation_config, check=check,
    )  # fmt: skip
