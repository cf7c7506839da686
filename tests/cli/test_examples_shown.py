"""What is shown of the data: the counts, what is lost and why, and samples in which what is learned is marked."""

import io
import json

import pytest
from rich.console import Console

from helpers.finetuning import chat_tokenizer
from nano_llama.cli.common import Output, Screen
from nano_llama.cli.examples_shown import CHARACTERS, examples_json, marked, remarks, show_examples, summaries
from nano_llama.data.sft.dataset import open_example_dataset
from nano_llama.data.sft.summary import Sample
from nano_llama.training.finetune import FinetuneSettings

LONG = "It is a dog, no more and no less. " * 8


def messages(*contents):
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]}


@pytest.fixture
def shown(tmp_path):
    records = [
        messages("What is the dog?", "It is a dog"), {**messages("a", "b", "c", LONG), "id": 3}, messages("long", LONG),
        {"prompt": "What", "completion": " is the cat"}, {"text": "A tree."}, messages("What is the tree?", "A tree"),
    ]  # fmt: skip
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, records)))
    (folder / "val.jsonl").write_text(json.dumps(messages("What is the bird?", "It is a bird")))
    (folder / "notes.csv").touch()
    settings = FinetuneSettings(data=str(folder), init_from="m", context=48, leave_out_long=True)
    return settings, open_example_dataset(folder, chat_tokenizer(), 48, leave_out_long=True)


def say(console_options, shown, **output):
    screen, text = Screen(Output(**output)), io.StringIO()
    screen.err = Console(file=text, markup=False, highlight=False, width=120, **console_options)
    show_examples(screen, *shown, summaries(*shown))
    return text.getvalue()


def test_counts_and_losses(shown):
    settings, dataset = shown
    text = " ".join(say({}, shown).split())
    assert "in all 6 1" in text and "user messages 5 1" in text and "completions 1 0" in text and "texts 1 0" in text
    assert "Fields that are not read: id (1)." in text, text
    assert "Files that are not read: notes.csv." in text
    cut, left_out = remarks(dataset, summaries(settings, dataset))[:2]
    assert "1 example" in cut and "train.jsonl, line 2" in cut
    assert "1 example" in left_out and "train.jsonl, line 3" in left_out
    as_json = examples_json(dataset, summaries(settings, dataset))
    assert as_json["train"]["left_out"][0]["where"].endswith("line 3") and as_json["unread_fields"] == {"id": 1}
    assert as_json["train"]["learned_tokens"] == dataset.train.num_learned
    json.dumps(as_json)


def test_what_is_learned_is_in_brackets_in_plain_text_and_in_colour_on_a_terminal(shown):
    plain = say({}, shown)
    assert "<|im_start|>user\nWhat is the dog?<|im_end|>\n<|im_start|>assistant\n⟦It is a dog<|im_end|>⟧" in plain
    coloured = say({"force_terminal": True, "color_system": "standard"}, shown)
    assert "⟦" not in coloured and "\x1b[1;32mIt is a dog<|im_end|>" in coloured


def test_quiet_says_nothing(shown):
    assert say({}, shown, quiet=True) == ""


def test_long_pieces_are_cut_in_their_middle_and_codes_are_shown():
    text = marked(Sample("x", [("a" * 5000, False), ("\x1b[31mred", True)]), coloured=False).plain
    assert len(text) < CHARACTERS + 100 and "[... 4,600 characters ...]" in text and text.endswith("⟦\\x1b[31mred⟧")
