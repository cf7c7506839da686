"""TrainSettings: types and ranges, text and back, and what excludes what."""

import dataclasses
import json

import pytest

from nano_llama.core.errors import ConfigError, UserError
from nano_llama.training.settings import DEFAULT_MINUTES, TrainSettings, fields_of, merge
from nano_llama.training.settings_layers import explicit, parse_setting

NAMES = [field.name for field in dataclasses.fields(TrainSettings)]


def test_json_round_trip(tmp_path):
    settings = TrainSettings(data="stdlib", max_steps=7, lr=1 / 3, tie_word_embeddings=False)
    path = tmp_path / "train.json"
    path.write_text(json.dumps(settings.to_json()))
    assert TrainSettings.load(path) == settings


def test_every_setting_is_explained_in_one_line():
    for name in NAMES:
        doc = fields_of(TrainSettings)[name].metadata["doc"]
        assert 10 < len(doc) < 110 and "\n" not in doc, name


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_written_as_text_is_read_back(name):
    example = {"max_steps": 5, "max_minutes": 2.5, "init_from": "x", "tie_word_embeddings": True, "rope_theta": 500.0}
    value = getattr(TrainSettings(), name)
    value = example.get(name, value) if value is None or name in example else value
    assert parse_setting(f"{name}={value}") == (name, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("max_steps=none", None), ("tie_word_embeddings=FALSE", False), ("lr=3e-4", 3e-4), ("data=a=b", "a=b"),
     ("max_minutes=2", 2.0), ("batch_size=1_000", 1000)],
)  # fmt: skip
def test_values_are_parsed_by_type(text, value):
    parsed = parse_setting(text)[1]
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "part"),
    [("lr", "no '='"), ("lr=fast", "'fast' is not a number"), ("batch_size=2.5", "a whole number"),
     ("tie_word_embeddings=1", "true or false"), ("learning_rate=1", "unknown setting 'learning_rate'"),
     ("lr=none", "'none' is not a number")],
)  # fmt: skip
def test_bad_texts_are_refused(text, part):
    with pytest.raises(UserError, match=part):
        parse_setting(text)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"batch_size": 0}, "batch_size = 0 must be a whole number at least 1"),
        ({"batch_size": True}, "batch_size = True"),
        ({"batch_size": 2.0}, "batch_size = 2.0"),
        ({"lr": 0.0}, "lr = 0.0 must be a number above 0"),
        ({"lr": float("nan")}, "lr = nan"),
        ({"lr": float("inf")}, "lr = inf"),
        ({"warmup": 1.5}, "at most 1"),
        ({"data": 3}, "data = 3 must be text"),
        ({"engine": "jax"}, "torch or numpy"),
        ({"seed": None}, "seed = None"),
    ],
)
def test_impossible_values_are_refused(changes, part):
    with pytest.raises(UserError, match=part):
        TrainSettings(**changes)


def test_an_unknown_key_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="unknown setting 'batchsize'") as error:
        TrainSettings.from_json({"batchsize": 3}, "my.json")
    assert "batch_size" in error.value.hint and "my.json" in error.value.message


def test_a_run_ends_by_steps_or_by_the_clock():
    with pytest.raises(UserError, match="both set"):
        TrainSettings(max_steps=3, max_minutes=1.0)
    assert TrainSettings().max_minutes == DEFAULT_MINUTES
    assert TrainSettings(max_steps=3).max_minutes is None
    assert TrainSettings(max_steps=3).replace(max_minutes=1.0).max_steps is None


def test_a_model_that_goes_on_keeps_its_shape_and_tokenizer():
    with pytest.raises(UserError, match=r"hidden_size = 64 cannot be combined with init_from"):
        TrainSettings(init_from="somewhere", hidden_size=64)
    merged = merge([{"model": "char", "tokenizer": "char", "lr": 1e-3}, {"init_from": "somewhere"}])
    assert merged == {"lr": 1e-3, "init_from": "somewhere"}


def test_later_layers_win_and_drive_out():
    assert merge([{"max_steps": 10, "lr": 1.0}, {"max_minutes": 2.0, "max_steps": None}, {"lr": 2.0}]) == {
        "max_minutes": 2.0, "max_steps": None, "lr": 2.0,
    }  # fmt: skip
    assert merge([{"init_from": "x"}, {"hidden_size": 8}]) == {"hidden_size": 8}


def test_the_shape_is_the_named_one_with_changes():
    config = TrainSettings(model="char", context=99, hidden_size=64).llama_config(vocab_size=50, eos=7)
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (64, 4, 50)
    assert (config.max_position_embeddings, config.eos_token_id) == (99, 7)
    # changing the query heads alone must not leave key/value heads that do not divide them
    assert TrainSettings(model="mini", num_attention_heads=4).llama_config(50).num_key_value_heads == 4
    with pytest.raises(ConfigError, match="num_attention_heads"):
        TrainSettings(model="char", num_attention_heads=3).llama_config(50)


def test_names_of_version_0_1_are_understood(tmp_path):
    path = tmp_path / "train.json"
    path.write_text('{"attend_across": false, "recompute": "full", "max_steps": 3}')
    settings = TrainSettings.load(path)
    assert settings.document_mask is True and settings.activation_checkpointing == "full"
    assert parse_setting("attend_across=true") == ("document_mask", False)
    assert explicit({"recompute": "selective", "attend_across": None}, ()) == {"activation_checkpointing": "selective"}
    assert TrainSettings().replace(attend_across=False).document_mask is True
    with pytest.raises(UserError, match="document_mask = 'yes' must be true or false"):
        TrainSettings.from_json({"attend_across": "yes"})
    with pytest.raises(UserError, match="recompute is now activation_checkpointing, and both are given"):
        TrainSettings.from_json({"activation_checkpointing": "full", "recompute": "full"})
