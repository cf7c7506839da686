"""What a run saves: a whole model as a Hugging Face folder, or an adapter alone in PEFT's format.

The run's folder and each checkpoint hold the same files, so either can be used as it is. Runs on pictures save what
picture_files.py says.
Tests: tests/training/test_model_files.py.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nano_llama.core import files
from nano_llama.core.config import LlamaConfig
from nano_llama.core.lora import LoraConfig
from nano_llama.formats import open_weights, read_config, save_hf
from nano_llama.formats.peft import read_adapter, save_adapter_files


class ModelFiles(Protocol):
    """How the trained weights lie in a folder."""

    def begin(self, folder: Path) -> None:
        """Write what is known before the first step."""
        ...

    def put(self, folder: Path, weights: Mapping[str, np.ndarray]) -> None:
        """Write the weights and all that is needed to use them into an existing folder, each file atomically."""
        ...

    def open(self, folder: Path) -> Mapping[str, np.ndarray]:
        """The weights that were put there."""
        ...


@dataclass
class WholeModel:
    """config.json, generation_config.json, model.safetensors and the tokenizer."""

    config: LlamaConfig
    tokenizer: Any

    def begin(self, folder: Path) -> None:
        files.write_json(folder / "config.json", self.config.to_hf_dict())
        self.tokenizer.save_pretrained(folder)

    def put(self, folder: Path, weights: Mapping[str, np.ndarray]) -> None:
        with written_beside(folder) as beside:
            save_hf(beside, self.config, weights, self.tokenizer)

    def open(self, folder: Path) -> Mapping[str, np.ndarray]:
        return open_weights(folder)


@dataclass
class AdapterFiles:
    """adapter_config.json, adapter_model.safetensors and the tokenizer. base: where the model beneath is."""

    lora: LoraConfig
    base: str
    tokenizer: Any

    def begin(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)

    def put(self, folder: Path, weights: Mapping[str, np.ndarray]) -> None:
        self.tokenizer.save_pretrained(folder)
        save_adapter_files(folder, self.lora, weights, base_model=self.base)

    def open(self, folder: Path) -> Mapping[str, np.ndarray]:
        return read_adapter(folder, read_config(self.base)).tensors


@contextmanager
def written_beside(folder: Path) -> Iterator[Path]:
    """A folder to write a model into, whose files are then moved to `folder`, each atomically."""
    beside = folder / ".model.tmp"
    shutil.rmtree(beside, ignore_errors=True)  # left by a kill
    yield beside
    # safetensors files and, after them, their index come last: names sort so
    for file in sorted(beside.iterdir(), key=lambda file: (".safetensors" in file.name, file.name)):
        file.replace(folder / file.name)
    beside.rmdir()
