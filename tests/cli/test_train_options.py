"""The flags of `train` are the settings: all of them, each once, with their own words."""

import dataclasses
import re

import pytest

from nano_llama.cli import dispatch
from nano_llama.cli.train_options import FIRST, TrainOptions, given
from nano_llama.training.settings import TrainSettings

SETTINGS = {field.name: field for field in dataclasses.fields(TrainSettings)}


def test_nothing_is_given_by_default():
    assert given(TrainOptions()) == {}
    assert given(TrainOptions(lr=0.1, seed=0)) == {"lr": 0.1, "seed": 0}


def test_help_is_short_and_what_it_names_exists(cli):
    lines = cli("train", "--help").out.splitlines()
    assert len(lines) <= 90
    assert set(SETTINGS) >= FIRST
    for name in SETTINGS:
        assert any(f"--{name.replace('_', '-')} " in line for line in lines) == (name in FIRST), name
    assert any("--help-all" in line for line in lines)


def test_help_all_has_every_flag_with_its_words(cli):
    text = " ".join(cli("train", "--help-all").out.split())
    for name, setting in SETTINGS.items():
        assert re.search(rf"--(no-|\[no-\])?{name.replace('_', '-')}[ ,]", text), name
        assert " ".join(setting.metadata["doc"].split()) in text
    assert "[default: 0.002]" in text
    for flag in ("--out", "--preset", "--config", "--set", "--resume"):
        assert f"{flag} " in text
    assert "shakespeare-cpu" in text


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--document-mask", {"document_mask": True}),
        ("--no-document-mask", {"document_mask": False}),
        ("--no-tie-word-embeddings", {"tie_word_embeddings": False}),
        ("--no-tensorboard", {"tensorboard": False}),
        ("--attend-across", {"attend_across": True}),  # names of version 0.1
        ("--no-attend-across", {"attend_across": False}),
        ("--recompute=full", {"recompute": "full"}),
    ],
)
def test_boolean_flags_have_their_no_form_and_old_flags_are_understood(monkeypatch, flag, expected):
    from nano_llama.cli import train

    seen = []
    monkeypatch.setattr(train, "layers", lambda preset, config, flags, overrides: seen.append(flags) or [{}])
    monkeypatch.setattr(train, "make_trainer", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dispatch.make_app("train", train.run)(["--out", "x", flag], exit_on_error=False, print_error=False)
    assert seen == [expected]


def test_old_flags_are_not_shown(cli):
    text = cli("train", "--help-all").out
    assert "--recompute" not in text and "attend-across" not in text
