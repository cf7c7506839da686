"""The flags of `train` are the settings: all of them, each once, with their own words."""

import dataclasses
import re

from nano_llama.cli.train_options import FIRST, GROUPS, TrainOptions, given
from nano_llama.training.settings import TrainSettings

SETTINGS = {field.name: field for field in dataclasses.fields(TrainSettings)}


def test_every_setting_stands_under_one_heading():
    listed = [name for _, names in GROUPS.values() for name in names]
    assert sorted(listed) == sorted(SETTINGS)


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
