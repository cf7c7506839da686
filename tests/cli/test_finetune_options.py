"""The flags of `finetune` are its settings, but for what the model owns; what is needed first comes first."""

import dataclasses
import re

from nano_llama.cli.finetune_options import FIRST, LEFT_OUT, FinetuneOptions
from nano_llama.cli.setting_options import given
from nano_llama.training.finetune.settings import FinetuneSettings

SETTINGS = {field.name: field for field in dataclasses.fields(FinetuneSettings)}
FLAGS = {name: "--model" if name == "init_from" else f"--{name.replace('_', '-')}" for name in SETTINGS}


def test_the_model_s_own_are_left_out():
    names = {field.name for field in dataclasses.fields(FinetuneOptions)}
    assert names == SETTINGS.keys() - LEFT_OUT
    assert given(FinetuneOptions(init_from="m", rank=4)) == {"init_from": "m", "rank": 4}
    assert {"tokenizer", "hidden_size", "document_mask"} <= LEFT_OUT


def test_help_is_short_and_begins_with_data_and_method(cli):
    text = cli("finetune", "--help").out
    assert len(text.splitlines()) <= 100
    for name in SETTINGS.keys() - LEFT_OUT:
        shown = re.search(rf"^ +{FLAGS[name]}[ ,]", text, re.M)
        assert bool(shown) == (name in FIRST), name
    headings = [line for line in text.splitlines() if line and not line.startswith((" ", "nano-llama"))]
    order = [headings.index(title) for title in ("Run", "Data and model", "Method", "Length of the run", "Batch")]
    assert order == sorted(order)
    assert "--check-data" in text and "--help-all" in text


def test_help_all_has_every_flag_with_its_words_and_its_own_default(cli):
    text = " ".join(cli("finetune", "--help-all").out.split())
    for name in SETTINGS.keys() - LEFT_OUT:
        assert re.search(rf"--(no-|\[no-\])?{FLAGS[name].removeprefix('--')}[ ,]", text), name
        assert " ".join(SETTINGS[name].metadata["doc"].split()) in text
    assert "[default: 0.002]" not in text, "the learning rate is of fine-tuning, not of training"
    assert str(len(SETTINGS) - len(LEFT_OUT)) in text
