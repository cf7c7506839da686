"""What a run on pictures saves: a whole model that reads images; where the LLaMA has factors, with these merged.

The factors themselves lie beside the model, as a resumed run needs them, with the digest of the weights that they
belong to. Tests: tests/training/test_picture_files.py.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core import files
from nano_llama.core.errors import UserError
from nano_llama.core.lora import LoraConfig, adapter_shapes
from nano_llama.core.names import parameter_shapes
from nano_llama.core.vision.config import VisionLanguageConfig
from nano_llama.core.vision.names import language_model, text_name
from nano_llama.formats.mapping import TensorMapping, as_mapping
from nano_llama.formats.merged import MergedWeights
from nano_llama.formats.peft import Adapter
from nano_llama.formats.safetensors import SafetensorsFile, contiguous_bytes, save_safetensors
from nano_llama.formats.vision_config import vision_language_to_hf
from nano_llama.formats.vision_folder import open_vision_language, save_vision_language, with_language_model
from nano_llama.training.model_files import written_beside

FACTORS, BASE = "language_model_lora.safetensors", "base_sha256"  # a file, and a key of its metadata


@dataclass
class VisionLanguageFiles:
    """The files of a whole model. frozen: the weights that are not trained."""

    config: VisionLanguageConfig
    tokenizer: Any
    frozen: Mapping[str, np.ndarray]

    def begin(self, folder: Path) -> None:
        files.write_json(folder / "config.json", vision_language_to_hf(self.config))
        self.tokenizer.save_pretrained(folder)

    def put(self, folder: Path, weights: Mapping[str, np.ndarray]) -> None:
        with written_beside(folder) as beside:
            self.write(beside, weights)

    def write(self, folder: Path, weights: Mapping[str, np.ndarray]) -> None:
        """Into a new folder."""
        save_vision_language(folder, self.config, {**self.frozen, **weights}, self.tokenizer)

    def open(self, folder: Path) -> Mapping[str, np.ndarray]:
        return open_vision_language(folder)[1]


@dataclass
class MergedVisionLanguageFiles(VisionLanguageFiles):
    """The same with the LLaMA's factors merged into its weights, which are frozen, and a file of the factors."""

    lora: LoraConfig

    def write(self, folder: Path, weights: Mapping[str, np.ndarray]) -> None:
        factors = {name: text_name(name) for name in adapter_shapes(self.lora, self.config.text_config)}  # ours -> here
        adapter = Adapter(folder, self.lora, {name: weights[here] for name, here in factors.items()}, None)
        save_vision_language(folder, self.config, self._merged(weights, adapter), self.tokenizer)
        save_safetensors(
            folder / FACTORS, {name: weights[name] for name in factors.values()}, metadata={BASE: self.base}
        )

    def _merged(self, weights: Mapping[str, np.ndarray], adapter: Adapter) -> TensorMapping:
        """Every tensor of the model, the LLaMA's matrices merged as they are read."""
        llama = as_mapping({name: self.frozen[text_name(name)] for name in parameter_shapes(self.config.text_config)})
        llama.known_config = self.config.text_config
        vision = as_mapping({**self.frozen, **weights})
        return with_language_model(self.config, vision, MergedWeights(llama, adapter, "float32"))[1]

    def open(self, folder: Path) -> Mapping[str, np.ndarray]:
        return open_with_factors(folder)

    @cached_property
    def base(self) -> str:
        return digest(language_model(self.frozen))


def open_with_factors(folder: Path) -> Mapping[str, np.ndarray]:
    """A model that MergedVisionLanguageFiles wrote, and the factors, by the names of a model with images."""
    return {**open_vision_language(folder)[1], **SafetensorsFile(folder / FACTORS)}


def check_same_base(folder: Path, base: Mapping[str, np.ndarray], source: str) -> None:
    """Raise UserError unless the factors in `folder` belong to these weights of the LLaMA, which `source` names."""
    if SafetensorsFile(folder / FACTORS).metadata.get(BASE) != digest(base):
        raise UserError(
            f"init_from = {source!r} has changed since {folder} was saved: the factors there belong to other weights.",
            hint=f"Restore it, or start a new run from the merged model:  --init-from {folder}",
        )


def digest(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and numbers."""
    total = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name]
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(contiguous_bytes(array))
    return total.hexdigest()
