"""The small tasks: their data, and (slow: minutes with `pytest -n 0 -m slow`) that a real model learns them."""

import importlib.util
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from nano_llama import LLM  # noqa: E402
from nano_llama.data.sft.examples import open_examples  # noqa: E402
from nano_llama.training.finetune.settings import FULL_LR  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("small_tasks", ROOT / "recipes" / "small_tasks.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


SKILLS = ("ledger", "reversal", "gatekeeper")


@pytest.mark.parametrize("name", SKILLS)
def test_what_is_held_out_was_not_shown(recipe, name):
    found = recipe.examples(recipe.TASKS[name])
    assert found == recipe.examples(recipe.TASKS[name]), "a seed decides on all of it"
    shown, asked = (dict(found[split]) for split in ("train", "val"))
    assert len(shown) == len(found["train"]) == 400 and len(asked) == len(found["val"]) == 60
    assert not shown.keys() & asked.keys()
    new = {word for question in asked for word in question.split()}
    new -= {word for question in shown for word in question.split()}
    assert len(new) >= 8, "words that are only asked for"
    assert len(set(asked.values())) >= 10, "no single answer is right often"


def test_the_facts_are_learned_and_asked(recipe):
    found = recipe.examples(recipe.TASKS["facts"])
    assert found["train"] == found["val"] and len(dict(found["train"])) == len(found["train"]) == 16


@pytest.mark.parametrize("name", [*SKILLS, "facts"])
def test_its_files_are_examples(recipe, name, tmp_path):
    found = recipe.examples(recipe.TASKS[name])
    recipe.write_examples(found, tmp_path)
    read = open_examples(tmp_path)
    for split, pairs in (("train", read.train), ("val", read.val)):
        assert [tuple(message["content"] for message in one.messages) for one in pairs] == found[split]


def learned(recipe, name, model, out, *overrides):
    return recipe.score(name, recipe.learn(recipe.TASKS[name], str(model), out, ["samples=0", *overrides]))


@pytest.mark.slow  # a real model learns for minutes
@pytest.mark.parametrize("name", SKILLS)
def test_the_defaults_teach_a_skill(recipe, smollm2, name, tmp_path):
    pairs = recipe.examples(recipe.TASKS[name])["val"][:10]
    assert not any(one["right"] for one in recipe.answers(LLM(smollm2), pairs)), "it cannot do it yet"
    found = learned(recipe, name, smollm2, tmp_path)
    assert found["right"] >= found["bar"] * found["asked"], found["wrong"]
    forgotten = found["after"]["held_out_bits_per_byte"] / found["before"]["held_out_bits_per_byte"]
    assert forgotten < 1.3, "what it learned is not all that it knows now"


@pytest.mark.slow  # a real model learns for a minute or two
@pytest.mark.parametrize("adapter", ["lora", "dora"])
def test_facts_are_learned_word_for_word(recipe, smollm2, adapter, tmp_path):
    found = learned(recipe, "facts", smollm2, tmp_path, f"adapter={adapter}")
    assert found["right"] == found["asked"] == 16, found["wrong"]
    assert found["steps"] <= 30


@pytest.mark.slow  # a real model learns twice
def test_an_adapter_learns_about_as_fast_as_all_weights(recipe, smollm2, tmp_path):
    by_adapter = learned(recipe, "facts", smollm2, tmp_path / "lora")
    whole = learned(recipe, "facts", smollm2, tmp_path / "whole", "adapter=none", f"lr={FULL_LR}")
    assert by_adapter["steps"] == whole["steps"] == len(whole["train_loss"])
    assert by_adapter["train_loss"][0] == pytest.approx(whole["train_loss"][0], rel=1e-3), "both start from the model"
    assert by_adapter["right"] == whole["right"] == 16
