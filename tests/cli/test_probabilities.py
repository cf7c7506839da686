"""`generate --show-probabilities`: the figures are a softmax of transformers' logits, and the table can be read."""

import io
import math

import numpy as np
import pytest
from rich.console import Console

from helpers.vision_models import picture
from nano_llama.cli.common import Screen
from nano_llama.cli.probabilities import (
    ALTERNATIVES,
    TINTS,
    distribution,
    fit,
    percent,
    probability_table,
    tint,
    token_name,
)
from nano_llama.core.sampling import SamplingParams
from nano_llama.tokenizer import Tokenizer
from nano_llama.vol3_engine.outputs import Logprob

SHOW = ("--show-probabilities", "--json", "--quiet")


@pytest.mark.parametrize(
    "sampling",
    [("--temperature", 0), ("--seed", 3), ("--seed", 4, "--top-k", 3, "--temperature", 2, "--repetition-penalty", 1.3)],
    ids=["greedy", "sampled", "cut"],
)
def test_they_are_the_softmax_of_transformers_logits(cli, tiny_model, sampling):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    done = cli("generate", tiny_model, "--prompt", "the quick", "--max-tokens", 12, *sampling, *SHOW).json
    ids = Tokenizer.from_pretrained(tiny_model).encode("the quick") + done["token_ids"]
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        p = model(torch.tensor([ids])).logits[0].double().softmax(-1).numpy()[-13:-1]  # (12,V)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-12)
    assert [token["id"] for token in done["probabilities"]] == done["token_ids"]
    for row, token in zip(p, done["probabilities"], strict=True):
        order = [int(i) for i in np.argsort(-row, kind="stable")]
        others = [i for i in order if i != token["id"]][:ALTERNATIVES]
        assert [other["id"] for other in token["alternatives"]] == others
        for entry in (token, *token["alternatives"]):
            assert entry["probability"] == pytest.approx(row[entry["id"]], rel=2e-4)
            assert entry["logprob"] == pytest.approx(math.log(row[entry["id"]]), abs=2e-4)
            assert entry["rank"] == order.index(entry["id"]) + 1
    if sampling == ("--temperature", 0):
        assert {token["rank"] for token in done["probabilities"]} == {1}


def test_of_a_small_vocabulary_they_sum_to_one(cli, make_tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("nano_llama.cli.generate.NUM_LOGPROBS", 1000)
    monkeypatch.setattr("nano_llama.cli.probabilities.ALTERNATIVES", 1000)
    model = make_tiny(tmp_path / "m", kind="char")
    done = cli("generate", model, "--prompt", "the", "--max-tokens", 5, *SHOW).json
    for token in done["probabilities"]:
        listed = [token, *token["alternatives"]]
        assert len({entry["id"] for entry in listed}) == Tokenizer.from_pretrained(model).vocab_size
        assert sum(entry["probability"] for entry in listed) == pytest.approx(1, abs=1e-9)


def test_nothing_else_changes(cli, tiny_model):
    told = ("generate", tiny_model, "--prompt", "the quick", "--max-tokens", 12, "--seed", 3, "--json", "--quiet")
    plain, shown = cli(*told).json, cli(*told, "--show-probabilities").json
    assert "probabilities" not in plain and plain["token_ids"] == shown["token_ids"]
    assert plain["text"] == shown["text"]


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_every_engine(cli, tiny_model, engine):
    told = ("generate", tiny_model, "--prompt", "the", "--max-tokens", 4, "--temperature", 0, *SHOW)
    expected = [token["logprob"] for token in cli(*told).json["probabilities"]]
    found = [token["logprob"] for token in cli(*told, "--engine", engine).json["probabilities"]]
    assert found == pytest.approx(expected, abs=1e-3)


def test_chats_images_and_stop_strings(cli, tiny_chat_model, tiny_model_with_eyes, tmp_path):
    image = pytest.importorskip("PIL.Image")
    told = ("--max-tokens", 6, "--seed", 1, *SHOW)
    answer = cli("generate", tiny_chat_model, "--prompt", "dog", "--chat", *told).json
    assert len(answer["probabilities"]) == answer["new_tokens"]
    image.fromarray(picture(0)).save(tmp_path / "a.png")
    seen = cli("generate", tiny_model_with_eyes, "--image", tmp_path / "a.png", "--prompt", "red", *told).json
    assert len(seen["probabilities"]) == seen["new_tokens"]
    cut = cli("generate", tiny_chat_model, "--prompt", "dog", *told, "--stop", answer["text"][1]).json
    texts = "".join(token["token"] for token in cut["probabilities"])
    assert texts.startswith(cut["text"]), "tokens that a stop string cut off have no line"


def test_a_pipe_gets_the_text_and_plain_lines(cli, tiny_model, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    told = ("generate", tiny_model, "--prompt", "the quick", "--max-tokens", 5, "--temperature", 0)
    text, done = cli(*told, "--json").json["text"], cli(*told, "--show-probabilities", "--quiet")
    assert done.out.startswith(text + "\n\n") and "\x1b" not in done.out
    header, *lines = done.out.removeprefix(text + "\n\n").split("\n\n")[0].splitlines()
    assert header.split() == ["token", "p", "bits", "likeliest", "other", "tokens"] and len(lines) == 5
    assert all(line.count("%") == 1 + ALTERNATIVES for line in lines)
    assert "of the token; each time the likeliest was taken." in done.out


def entries(*logprobs):
    return {i: Logprob(logprob, i + 1, "") for i, logprob in enumerate(logprobs)}


@pytest.mark.parametrize(
    ("color", "no_color"), [("truecolor", False), ("standard", False), (None, False), ("truecolor", True)]
)
def test_on_a_terminal_of_80_columns(color, no_color):
    tokenizer = Tokenizer.train_char("the quick \nbrown fox jumps")
    screen = Screen()
    screen.out = Console(
        file=io.StringIO(), force_terminal=True, width=80, color_system=color, highlight=False, no_color=no_color
    )
    rows = [entries(*(math.log(p) for p in (first, 0.2, 0.1, 0.05, 0.01, 1e-6))) for first in (0.6, 0.3, 0.001)]
    for item in probability_table(screen, tokenizer, rows, SamplingParams(temperature=0.5, top_k=7)):
        screen.out.print(item)
    shown = screen.out.file.getvalue()
    coloured = color is not None and not no_color
    assert coloured == ("\x1b[" in shown) == ("7.5 or more" in shown)
    assert "before temperature 0.5 and top-k 7 changed it" in " ".join(shown.split())
    assert "60.0%   0.7" in shown and "0.10%  10.0" in shown and "<0.01%" in shown
    if color is None:
        assert max(map(len, shown.splitlines())) <= 80


def test_what_does_not_fit_into_a_line_is_said():
    screen = Screen()
    screen.out = Console(file=io.StringIO(), width=40)
    rows = [entries(*(math.log(p) for p in (0.3, 0.2, 0.1, 0.05, 0.01, 0.01)))]
    table = probability_table(screen, Tokenizer.train_char("abcdefgh"), rows, SamplingParams())
    assert "wider screen" in str(table[-1])
    assert fit(["four", "four", "four"], 10) == ["four", "four"] and fit(["four"], 1) == ["four"]


def test_which_distribution_it_is_is_said():
    greedy = distribution(SamplingParams(temperature=0.0, top_p=0.5, repetition_penalty=1.1))
    assert "of the token, before repetition penalty 1.1; each time the likeliest was taken." in greedy
    three = distribution(SamplingParams(temperature=2.0, min_p=0.1, top_p=0.5))
    assert "of the token, before temperature 2, min-p 0.1 and top-p 0.5 changed it." in three
    assert "of the token, with which it was drawn." in distribution(SamplingParams())


def test_names_and_figures():
    tokenizer = Tokenizer.from_pretrained("nano_gpt")
    names = [token_name(tokenizer, token) for token in tokenizer.encode(" a\n\x07", add_bos=False)]
    assert "".join(names) == "␣a⏎\\x07"
    crab = [token_name(tokenizer, token) for token in tokenizer.encode("🦀", add_bos=False)]
    assert len(crab) > 1 and "".join(crab) == "".join(f"\\x{byte:02x}" for byte in "🦀".encode())
    assert [percent(math.log(p)) for p in (1, 0.9996, 0.5, 0.0123, 0.00456, 1e-5)] == [
        "100.0%", ">99.9%", "50.0%", "1.2%", "0.46%", "<0.01%",
    ]  # fmt: skip
    assert tint(None) is None and tint([entries(math.log(0.6))]) is None
    assert tint([entries(math.log(0.6)), entries(-10.0)]).endswith(TINTS[7.5])
