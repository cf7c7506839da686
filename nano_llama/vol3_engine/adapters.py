"""Adapters beside a model: which are loaded, and what each makes of the matrices that it adapts.

    y = rescaling * (W x) + B (A x)         A (r,in), B (out,r); rescaling (out,) is 1 everywhere but with DoRA

W stays as it is, quantized or not: a merged matrix would have to be quantized again, which loses more than an adapter
changes; and requests with different adapters, or none, share W in one batch. LoRA's scale is in B. DoRA gives every row
of W + scale B A a length m, so its rescaling is m over that row's length, of W as the runner multiplies it.
Not here: the files (formats/peft.py), training them (vol2_torch/finetune). Tests: tests/vol3/test_adapters.py.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.lora import dora_rescaling, module_tensors
from nano_llama.core.names import EMBED, LM_HEAD
from nano_llama.formats import open_text_model
from nano_llama.formats.mapping import TensorMapping
from nano_llama.formats.peft import Adapter, read_adapter


class Default(Enum):
    """What a request gets that names no adapter: the one that its LLM was loaded with, or the base model."""

    ADAPTER = "the LLM's own"


AdapterChoice = str | None | Literal[Default.ADAPTER]  # an adapter's name, or None for the base model


class LowRankUpdate(NamedTuple):
    """What an adapter makes of one matrix: see above. All float32."""

    A: np.ndarray  # (r,in)
    B: np.ndarray  # (out,r), times LoRA's scale and the rescaling
    rescaling: np.ndarray  # (out,)


def named_folders(adapter: Any) -> tuple[dict[str, Path], str | None]:
    """LLM's argument -> {name: folder}, and which of them is the default. A single folder gives it its own name.

    Raises UserError for anything else than a folder, a mapping of names to folders, or None.
    """
    if adapter is None:
        return {}, None
    if isinstance(adapter, str | Path):
        name = Path(adapter).resolve().name
        return {name: Path(adapter)}, name
    if not isinstance(adapter, Mapping) or not all(
        isinstance(name, str) and name and isinstance(folder, str | Path) for name, folder in adapter.items()
    ):
        raise UserError(
            f"adapter={adapter!r:.200} must be a folder, or a mapping of names to folders.",
            hint='For example adapter={"poet": "runs/poet"}.',
        )
    return {name: Path(folder) for name, folder in adapter.items()}, None


def read_adapters(folders: Mapping[str, Path], config: LlamaConfig, weights: TensorMapping) -> dict[str, Adapter]:
    """All of them, checked against the model that they are for. Raises UserError, ConfigError, FormatError."""
    adapters = {name: read_adapter(folder, config) for name, folder in folders.items()}
    for adapter in adapters.values():
        if adapter.base_head is not None:
            adapter.check_base_head(np.asarray(weights[EMBED if config.tie_word_embeddings else LM_HEAD]))
    return adapters


def load_adapters(folders: Mapping[str, Path] | None, model: str | Path) -> dict[str, Adapter]:
    """The same, of a model that lies there."""
    if not folders:
        return {}
    with open_text_model(model) as weights:
        return read_adapters(folders, weights.config, weights)


def low_rank_updates(adapter: Adapter, weight_of: Callable[[str], np.ndarray]) -> dict[str, LowRankUpdate]:
    """module -> what the adapter makes of it. weight_of: a module's W (out,in) as it is multiplied; asked with DoRA."""
    updates = {}
    for name in adapter.tensors:
        module, _, part = name.rpartition(".")
        if part != "lora_A":
            continue
        stored_A, stored_B, magnitude = module_tensors(adapter.tensors, module)
        A = np.asarray(stored_A, np.float32)  # (r,in)
        B = np.float32(adapter.lora.scale) * np.asarray(stored_B, np.float32)  # (out,r)
        rescaling = np.ones(len(B), np.float32)  # (out,)
        if magnitude is not None:
            merged = np.asarray(weight_of(module), np.float32) + B @ A  # (out,in)
            rescaling = dora_rescaling(merged, np.asarray(magnitude, np.float32))
        updates[module] = LowRankUpdate(A, rescaling[:, None] * B, rescaling)
    return updates


def chosen_adapter(choice: Any, default: str | None, loaded: tuple[str, ...]) -> str | None:
    """The name of the adapter that a request gets. Raises UserError for one that is not loaded."""
    name = default if choice is Default.ADAPTER else choice
    if name is not None and name not in loaded:
        known = f"Loaded are {', '.join(loaded)}." if loaded else "None are loaded: LLM(path, adapter={name: folder})."
        raise UserError(f"adapter={name!r:.80} is not the name of an adapter that is loaded.", hint=known)
    return name
