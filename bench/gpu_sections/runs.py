"""Settings and data of the training runs that correctness.py compares and training.py times."""

from importlib.util import find_spec
from typing import Any

import numpy as np

from gpu_sections.report import Place
from nano_llama.data.dataset import Dataset
from nano_llama.data.prepare import prepare
from nano_llama.training import TrainSettings
from nano_llama.training.presets import training_preset

TRITON = {"attention": "triton", "kernels": "triton"}
GRAPH = {"execution": "graph"}
TINY: dict[str, Any] = {
    "model": "tiny", "context": 16, "batch_size": 2, "accumulate": 1, "compile": "off", "device": "cpu",
    "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": None,
    "precision": "fp32",
}  # fmt: skip


def random_text(place: Place, vocab_size: int, length: int = 1_500_000) -> Dataset:
    """A text of so many different characters in random order: a vocabulary of that size in seconds, without merges."""
    symbols = np.array([*range(0x4E00, 0x9FA6), *range(0x20000, 0x2A6D7)], np.uint32)[: place.pick(vocab_size, 64)]
    drawn = np.random.default_rng(0).integers(0, len(symbols), place.pick(length, 20_000))
    text = symbols[np.concatenate([np.arange(len(symbols)), drawn])].astype("<u4").tobytes().decode("utf-32-le")
    path = place.scratch / f"random-{len(symbols)}.txt"
    path.write_text(text, encoding="utf-8")
    return prepare(str(path), "char")


def settings_of(place: Place, preset: str, **changes: Any) -> TrainSettings:
    """The preset without evaluations, compiled as its full length would have it; TINY in a rehearsal."""
    values = {**training_preset(preset), "data": "random", "tokenizer": "char", "compile": "on", "device": "cuda",
              "evaluations": 0, "samples": 0, "log_every": 100, "checkpoint_minutes": 600.0, **changes}  # fmt: skip
    values = {key: value for key, value in values.items() if key not in ("max_steps", "max_minutes")}
    return TrainSettings.from_json({**values, **place.pick({}, TINY), "max_steps": 1})


def possible(place: Place, paths: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """All of them on a card; a rehearsal compiles nothing, and has no kernels of ours where triton is missing."""
    if not place.rehearse:
        return paths
    left_out = {"on"} if find_spec("triton") else {"on", "triton"}
    return {name: changes for name, changes in paths.items() if not left_out & set(changes.values())}
