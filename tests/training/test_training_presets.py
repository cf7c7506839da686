"""Recipes, and how presets, files and flags come together."""

import json
import os

import pytest

from nano_llama.core.errors import UserError
from nano_llama.training.presets import EXPECTED, TRAINING_PRESETS, training_preset
from nano_llama.training.settings import TrainSettings
from nano_llama.training.settings_layers import make_settings


@pytest.mark.parametrize("name", TRAINING_PRESETS)
def test_a_recipe_is_a_valid_small_difference(name):
    settings = make_settings(preset=name)
    settings.llama_config(vocab_size=4096)
    different = {key for key, value in settings.to_json().items() if value != getattr(TrainSettings(), key)}
    if settings.max_steps:
        different -= {"max_minutes"}  # steps take their place
    assert different <= set(TRAINING_PRESETS[name]), "a preset says what it changes, and nothing else changes"
    assert len(different) < 17


def test_later_layers_win(tmp_path):
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"lr": 0.5, "batch_size": 3}))
    settings = make_settings(
        preset="shakespeare-cpu", config=config, flags={"batch_size": 5, "seed": None}, overrides=["context=7"]
    )
    assert (settings.lr, settings.batch_size, settings.context, settings.seed) == (0.5, 5, 7, 0)
    assert settings.tokenizer == "char"


def test_steps_take_the_place_of_a_recipes_minutes():
    settings = make_settings(preset="shakespeare-cpu", flags={"max_steps": 9})
    assert settings.max_steps == 9 and settings.max_minutes is None


def test_init_from_takes_the_place_of_a_recipes_shape():
    settings = make_settings(preset="shakespeare-cpu", flags={"init_from": "org/model"})
    assert settings.model is None and settings.tokenizer is None and settings.data == "shakespeare"


def test_what_contradicts_itself_is_refused(tmp_path):
    with pytest.raises(UserError, match="lr is given twice"):
        make_settings(flags={"lr": 1.0}, overrides=["lr=2"])
    with pytest.raises(UserError, match="both set"):
        make_settings(flags={"max_steps": 1, "max_minutes": 1.0})
    with pytest.raises(UserError, match="Unknown training preset 'shakespear'"):
        training_preset("shakespear")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match="a JSON object of settings was expected"):
        make_settings(config=tmp_path / "list.json")


def test_paths_are_kept_absolute_and_names_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "stdlib").mkdir()
    assert make_settings(flags={"data": "a.txt"}).data == os.fspath(tmp_path / "a.txt")
    assert make_settings(overrides=["data=stdlib"]).data == "stdlib"
    assert make_settings(flags={"data": "missing.txt", "tokenizer": "bpe:300"}).tokenizer == "bpe:300"


def test_the_loss_that_is_promised_was_measured():
    from pathlib import Path

    measured = json.loads((Path(__file__).parents[2] / "bench/results/volume2_shakespeare.json").read_text())
    promised = float(EXPECTED["shakespeare-cpu"].loss.split()[0])
    assert measured["val_loss"] <= promised + 0.005
