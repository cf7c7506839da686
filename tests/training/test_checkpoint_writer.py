"""The writer beside the training: what it keeps is the moment of the call, and its failures are heard."""

import threading

import numpy as np
import pytest

from nano_llama.core.errors import EnvironmentFault
from nano_llama.core.init import init_params
from nano_llama.formats.mapping import Arrays
from nano_llama.training import checkpoint, checkpoint_writer
from nano_llama.training.checkpoint import list_checkpoints, load_checkpoint
from nano_llama.training.checkpoint_writer import CheckpointWriter
from nano_llama.training.model_files import WholeModel
from nano_llama.training.ranks import GatheredTensors
from nano_llama.training.run_folder import RunFolder


class FakeTokenizer:
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


@pytest.fixture
def run(tmp_path, tiny_config):
    """A writer, the arrays that training changes, and save(step)."""
    config = tiny_config()
    writer = CheckpointWriter(RunFolder(tmp_path), WholeModel(config, FakeTokenizer()), keep=2)
    weights, tensors = init_params(config, 0), {"momentum": np.zeros(3, np.float32)}
    return writer, weights, tensors, lambda step: writer.save(step, weights, tensors, {})


def test_what_is_written_is_the_moment_of_the_call(run, tmp_path, monkeypatch):
    writer, weights, tensors, save = run
    may_write, save_in_parts = threading.Event(), checkpoint.save_in_parts

    def late(*arguments):
        assert may_write.wait(10.0)
        yield from save_in_parts(*arguments)

    monkeypatch.setattr(checkpoint_writer, "save_in_parts", late)
    before = {name: array.copy() for name, array in weights.items()}
    save(1)  # returns although nothing can be written yet
    for array in (*weights.values(), *tensors.values()):
        array += 1.0  # the training goes on
    may_write.set()
    writer.wait()
    kept = load_checkpoint(tmp_path / "checkpoints/step-00000001")
    assert all(np.array_equal(kept.weights[name], before[name]) for name in before)
    assert not kept.tensors["momentum"].any()
    assert writer.paused > 0 and writer.seconds >= writer.paused


def test_one_after_the_other_and_the_old_ones_go(run, tmp_path):
    writer, _, _, save = run
    for step in range(5):
        save(step)
    writer.wait()
    assert [path.name[-1] for path in list_checkpoints(tmp_path / "checkpoints")] == ["3", "4"]


def test_a_full_disk_is_heard_at_the_next_save_and_at_the_end(run, tmp_path, monkeypatch):
    writer, _, _, save = run
    save(1)
    writer.wait()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_safetensors", full)
    save(2)
    with pytest.raises(EnvironmentFault, match="No space left"):
        save(3)
    save(4)
    with pytest.raises(EnvironmentFault, match="No space left"):
        writer.wait()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"], (
        "what was there before stays"
    )


class Shared(GatheredTensors):
    """Arrays as a mesh has them, of which the first rank reads one after another."""

    def __init__(self, arrays):
        self.arrays, self.path, self.read, self.closed = Arrays(arrays), "(shared)", [], False

    def __getitem__(self, name):
        assert not self.closed and threading.current_thread() is threading.main_thread()
        self.read.append(name)
        return self.arrays[name]

    def __iter__(self):
        return iter(self.arrays)

    def __len__(self):
        return len(self.arrays)

    def shape(self, name):
        return self.arrays.shape(name)

    def dtype_name(self, name):
        return self.arrays.dtype_name(name)

    def close(self):
        self.closed = True


def test_what_processes_share_is_read_once_and_before_training_goes_on(run, tmp_path, monkeypatch):
    writer, weights, tensors, _ = run
    may_end, sha256 = threading.Event(), checkpoint._sha256
    monkeypatch.setattr(checkpoint, "_sha256", lambda file: may_end.wait(10.0) and sha256(file))
    shared = Shared(weights), Shared(tensors)
    writer.save(1, *shared, {})
    for part, whole in zip(shared, (weights, tensors), strict=True):
        assert part.closed and sorted(part.read) == sorted(whole)
    assert writer.busy and not list_checkpoints(tmp_path / "checkpoints"), "the rest is the thread's"
    may_end.set()
    writer.wait()
    kept = load_checkpoint(tmp_path / "checkpoints/step-00000001")
    assert all(np.array_equal(kept.weights[name], weights[name]) for name in weights)


def test_a_full_disk_lets_the_other_processes_go(run, monkeypatch):
    writer, weights, tensors, _ = run

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_safetensors", full)
    shared = Shared(weights), Shared(tensors)
    with pytest.raises(EnvironmentFault, match="No space left") as told:
        writer.save(1, *shared, {})
    assert "--resume" in told.value.hint and all(part.closed for part in shared)
