"""A checkpoint: all that a run needs to resume as if nothing had happened, in one folder that appears whole.

    config.json  model.safetensors  tokenizer.json ...    a Hugging Face model: any command's --model takes it; or an
                            adapter in PEFT's format (model_files.py)
    training.safetensors    the optimizer's tensors and the states of random generators (checkpoint_keys.py)
    state.json              step, tokens seen, position in the data, elapsed seconds ... written last, with the SHA-256
                            of every other file and of itself

The folder is written under a temporary name and renamed, so a kill leaves the checkpoint before. No pickle, so a
checkpoint from elsewhere cannot run code. checkpoints.py says when one is taken, checkpoint_writer.py writes it while
training goes on.
Tests: tests/training/test_checkpoint.py.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core import files
from nano_llama.core.errors import FormatError, UserError
from nano_llama.formats import open_weights, save_safetensors
from nano_llama.formats.mapping import as_mapping
from nano_llama.formats.safetensors import SafetensorsFile
from nano_llama.training import checkpoint_keys
from nano_llama.training.model_files import ModelFiles

VERSION = 3  # 2: Volume 1 named its training tensors the other way round (checkpoint_keys.py); it is still read
STATE, TENSORS = "state.json", "training.safetensors"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What was saved: the model's `weights`, the backend's `tensors`, the loop's `state`."""

    path: Path
    weights: Mapping[str, np.ndarray]
    tensors: Mapping[str, np.ndarray]
    state: dict[str, Any]


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def checkpoint_step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def save_in_parts(
    folder: Path, step: int, model: ModelFiles, weights: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
) -> Iterator[None]:  # fmt: skip
    """Write `folder`/step-<step>, in two parts: after the first, `weights` and `tensors` are not used any more.

    Each tensor is asked for once and let go before the next, so that they need not exist all at once; then their
    mappings are closed. An existing checkpoint of this step is left as it is.
    """
    path = checkpoint_path(folder, step)
    with as_mapping(tensors) as all_tensors, as_mapping(weights) as all_weights:
        if path.exists():
            return  # the same run at the same step has the same content
        with files.atomic_folder(path) as temporary:
            model.put(temporary, all_weights)
            all_weights.close()
            save_safetensors(temporary / TENSORS, all_tensors)
            all_tensors.close()
            yield
            sums = {file.name: _sha256(file) for file in sorted(temporary.iterdir())}
            content = {"version": VERSION, "step": step, **state, "files": sums}
            files.write_json(temporary / STATE, {**content, "checksum": _checksum(content)})


def list_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in `folder`, oldest first."""
    named = (path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal())
    return sorted(path for path in named if (path / STATE).is_file())


def best_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint in `folder` with the lowest validation loss; None: none of them was evaluated."""
    losses = {path: _validation_loss(path) for path in list_checkpoints(folder)}
    best = min(losses, key=lambda path: losses[path], default=None)
    return best if best is not None and losses[best] < math.inf else None


def copy_model(checkpoint: Path, folder: Path) -> None:
    """Put the model that a checkpoint holds into an existing folder, each file atomically.

    Raises UserError or FormatError, before anything is written, if there is no such checkpoint or it is damaged.
    """
    state = _read_state(checkpoint)
    names = [name for name in state["files"] if name != TENSORS]
    _verify(checkpoint, state, names)
    for name in sorted(names, key=lambda name: (".safetensors" in name, name)):  # weights, and then their index, last
        with files.atomic_path(folder / name) as temporary:
            shutil.copyfile(checkpoint / name, temporary)


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` and the best one, and what a killed process left half-written."""
    best = best_checkpoint(folder)
    old = [path for path in list_checkpoints(folder)[:-keep] if path != best]
    for path in old + list(folder.glob(".*.tmp")):
        shutil.rmtree(path, ignore_errors=True)


def remove_later(folder: Path, step: int) -> None:
    """Remove the checkpoints after `step`: the run resumes there, and will reach those steps again."""
    for path in folder.glob("step-*"):
        if path.name > checkpoint_path(folder, step).name:
            shutil.rmtree(path, ignore_errors=True)


def load_checkpoint(
    path: Path, needs: Collection[str] = (), open_model: Callable[[Path], Mapping[str, np.ndarray]] = open_weights,
    *, verify: bool = True,
) -> Checkpoint:  # fmt: skip
    """Open a checkpoint whose state has the keys `needs`. Raises FormatError, naming the file, if it is damaged.

    open_model: opens what it holds of the model. verify: read all files first; False: another process does.
    """
    state = _read_state(path)
    if verify:
        _verify(path, state, state["files"])
    missing = [name for name in needs if name not in state]
    if missing:
        raise FormatError(f"{path / STATE}: {', '.join(missing)} missing.")
    weights = open_model(path)
    tensors: Mapping[str, np.ndarray] = SafetensorsFile(path / TENSORS)
    if state["version"] == 2:
        tensors = RenamedTensors(tensors, checkpoint_keys.from_prefixed(tensors, weights))
    return Checkpoint(path=path, weights=weights, tensors=tensors, state=state)


class RenamedTensors(Mapping[str, np.ndarray]):
    """The tensors of a file by the names of today. names: in the file -> today."""

    def __init__(self, tensors: Mapping[str, np.ndarray], names: Mapping[str, str]):
        self.tensors, self.in_file = tensors, {new: old for old, new in names.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[self.in_file[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.in_file)

    def __len__(self) -> int:
        return len(self.in_file)


def _read_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint. Raises UserError or FormatError if it is another program's, or damaged."""
    state = files.read_json(path / STATE, what="checkpoint's state")
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise FormatError(f"{path / STATE}: not the state of a checkpoint.")
    if state.get("version") not in (2, VERSION):
        raise UserError(
            f"{path}: a checkpoint of version {state.get('version')!r}; this program reads versions 2 and {VERSION}.",
            hint="Resume with the version of nano-llama that wrote it, or start a new run with --init-from.",
        )
    content = {name: value for name, value in state.items() if name != "checksum"}
    if state.get("checksum") != _checksum(content) or not isinstance(state.get("files"), dict):
        raise FormatError(f"{path / STATE}: its content does not match its checksum.")
    if TENSORS not in state["files"]:
        raise FormatError(f"{path}: {TENSORS} is missing.")
    return state


def _verify(path: Path, state: dict[str, Any], names: Iterable[str]) -> None:
    """Read these of the files that the state lists. Raises FormatError at the first that is not as it was written."""
    for name in names:
        if not (path / name).is_file():
            raise FormatError(f"{path}: {name} is missing.")
        if _sha256(path / name) != state["files"][name]:
            raise FormatError(f"{path / name}: its content does not match its checksum.")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FormatError(
            f"Cannot read {path}: {error.strerror or error}.", hint="Check the permissions there."
        ) from error


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _validation_loss(path: Path) -> float:
    """Nats per token when this checkpoint was taken; infinity if it was not evaluated, or cannot be read."""
    try:
        loss = files.read_json(path / STATE).get("val_loss")
    except (UserError, AttributeError):  # damaged: another one is the best
        return math.inf
    return loss if isinstance(loss, float) else math.inf
