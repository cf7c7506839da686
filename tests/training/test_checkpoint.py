"""Checkpoints: exact, whole or not there, and readable as models."""

import json

import numpy as np
import pytest

from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.init import init_params
from nano_llama.formats import open_weights, read_config
from nano_llama.training import checkpoint as module
from nano_llama.training.checkpoint import (
    VERSION,
    best_checkpoint,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    save_in_parts,
)
from nano_llama.training.model_files import WholeModel


class FakeTokenizer:
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


@pytest.fixture
def save(tmp_path, tiny_config):
    config = tiny_config()

    def save(step, seed=0, **state):
        tensors = {
            "a/exp_avg": np.full((2, 3), step, np.float32),
            "a/step": np.float32(step),
            "rng": np.arange(9, dtype=np.uint8),
        }
        model = WholeModel(config, FakeTokenizer())
        list(save_in_parts(tmp_path, step, model, init_params(config, seed), tensors, state))
        return config

    return save


def test_everything_comes_back_bit_for_bit(save, tmp_path):
    config = save(7, tokens=12345678901, progress=0.1 + 0.2, loss_sum=1 / 3)
    loaded = load_checkpoint(tmp_path / "step-00000007")
    state = {name: value for name, value in loaded.state.items() if name not in ("files", "checksum")}
    assert state == {"version": VERSION, "step": 7, "tokens": 12345678901, "progress": 0.1 + 0.2, "loss_sum": 1 / 3}
    for name, array in init_params(config, 0).items():
        assert np.array_equal(loaded.weights[name], array), name
    assert loaded.tensors["a/step"].shape == () and loaded.tensors["a/step"] == 7
    assert loaded.tensors["rng"].dtype == np.uint8 and set(loaded.tensors) == {"a/exp_avg", "a/step", "rng"}


def test_it_is_a_model_that_any_verb_reads(save, tmp_path):
    config = save(7)
    assert read_config(tmp_path / "step-00000007") == config
    with open_weights(tmp_path / "step-00000007") as weights:
        assert set(weights) == set(init_params(config))


def test_a_failure_while_writing_leaves_only_the_one_before(save, tmp_path, monkeypatch):
    save(7)

    def disk_full(path, tensors):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_safetensors", disk_full)
    with pytest.raises(Exception, match="No space left"):
        save(8)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000007"]


def test_only_the_newest_are_kept_and_leftovers_go(save, tmp_path):
    for step in (5, 100, 20, 1000):
        save(step)
    (tmp_path / ".step-00002000.1.ab.tmp").mkdir()  # a process was killed here
    (tmp_path / "step-00003000").mkdir()  # no state.json in it: not a whole checkpoint
    prune_checkpoints(tmp_path, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000100", "step-00001000"]
    assert not list(tmp_path.glob(".*"))


def test_damage_is_named(save, tmp_path):
    save(7)
    state = tmp_path / "step-00000007" / "state.json"
    content = json.loads(state.read_text())
    for damaged in ("{", "[]", "{}"):
        state.write_text(damaged)
        with pytest.raises(FormatError, match=r"state\.json"):
            load_checkpoint(state.parent)
    state.write_text(json.dumps({**content, "version": 99}))
    with pytest.raises(UserError, match="version 99"):
        load_checkpoint(state.parent)
    state.write_text(json.dumps(content))
    tensors = state.parent / "training.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"training\.safetensors"):
        load_checkpoint(state.parent)


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "config.json", "tokenizer.json"])
def test_one_flipped_bit_or_a_missing_file_is_damage(save, tmp_path, name):
    save(7)
    file = tmp_path / "step-00000007" / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(FormatError, match=f"{name}: its content"):
        load_checkpoint(file.parent)
    file.unlink()
    with pytest.raises(FormatError, match=f"{name} is missing"):
        load_checkpoint(file.parent)


def test_a_changed_state_is_damage(save, tmp_path):
    save(7, tokens=500)
    state = tmp_path / "step-00000007" / "state.json"
    state.write_text(state.read_text().replace("500", "501"))
    with pytest.raises(FormatError, match="checksum"):
        load_checkpoint(state.parent)


def test_the_best_stays_beside_the_newest(save, tmp_path):
    for step, loss in ((1, 3.0), (2, 1.5), (3, None), (4, 2.0), (5, None)):
        save(step, val_loss=loss)
    prune_checkpoints(tmp_path, keep=2)
    assert [path.name[-1] for path in list_checkpoints(tmp_path)] == ["2", "4", "5"]
    (tmp_path / "step-00000002" / "state.json").write_text("[]")  # what cannot be read is not the best
    assert best_checkpoint(tmp_path).name[-1] == "4"
