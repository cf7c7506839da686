"""A checkpoint: all that a run needs to go on as if nothing had happened, in one folder that appears whole.

    config.json  model.safetensors  tokenizer.json ...    a Hugging Face model: any verb's --model takes it
    training.safetensors    the optimizer's tensors and the states of random generators
    state.json              step, tokens seen, position in the data, elapsed seconds ... written last

The folder is written under a temporary name and renamed, so a kill leaves the checkpoint before. No pickle, so a
checkpoint from elsewhere can run no code. Not here: when one is taken (loop.py), and what an engine's tensors mean.
Tests: tests/core/training/test_checkpoint.py.
"""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core import files
from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.formats import open_weights, save_safetensors
from nano_llama.core.formats.safetensors import SafetensorsFile
from nano_llama.core.training.run_folder import put_model

VERSION = 1
STATE, TENSORS = "state.json", "training.safetensors"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What was saved: `weights` by the model's names, `tensors` by the engine's, `state` by the loop's."""

    path: Path
    weights: Mapping[str, np.ndarray]
    tensors: Mapping[str, np.ndarray]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    step: int,
    config: LlamaConfig,
    weights: Mapping[str, np.ndarray],
    tokenizer: Any,
    tensors: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
) -> Path:
    """Write `folder`/step-<step>, replacing none: a checkpoint of this step that exists already is left as it is."""
    path = folder / f"step-{step:08d}"
    if path.exists():
        return path  # the same run at the same step: the same content
    with files.atomic_folder(path) as temporary:
        put_model(temporary, config, weights, tokenizer)
        save_safetensors(temporary / TENSORS, tensors)
        files.write_json(temporary / STATE, {"version": VERSION, "step": step, **state})
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / STATE).is_file())


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep`, and what a killed process left half written."""
    for path in list_checkpoints(folder)[:-keep] + list(folder.glob(".*.tmp")):
        shutil.rmtree(path, ignore_errors=True)


def load_checkpoint(path: Path, needs: Collection[str] = ()) -> Checkpoint:
    """Open a checkpoint whose state has the keys `needs`. Raises FormatError, naming the file, when it is damaged."""
    state = files.read_json(path / STATE, what="checkpoint's state")
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise FormatError(f"{path / STATE}: not the state of a checkpoint.")
    if state.get("version") != VERSION:
        raise UserError(
            f"{path}: a checkpoint of version {state.get('version')!r}; this program reads version {VERSION}.",
            hint="Go on with the version of nano-llama that wrote it, or begin a new run with --init-from.",
        )
    missing = [name for name in needs if name not in state]
    if missing:
        raise FormatError(f"{path / STATE}: {', '.join(missing)} missing.")
    if not (path / TENSORS).is_file():
        raise FormatError(f"{path}: {TENSORS} is missing.")
    return Checkpoint(path=path, weights=open_weights(path), tensors=SafetensorsFile(path / TENSORS), state=state)
