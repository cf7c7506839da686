"""An examination says what the model does: its figures and its answers are those of the model called directly."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from helpers.training import HandClock
from nano_llama.core.errors import UserError
from nano_llama.data.sources import open_source
from nano_llama.tokenizer import Tokenizer
from nano_llama.training.finetune.examination import QUESTIONS, SHOWN, Examination, Examiner
from nano_llama.training.finetune.held_out import TOKENS, held_out_text
from nano_llama.vol2_torch import Llama
from nano_llama.vol2_torch.trainer import Trainer

PLENTY = 1e6  # seconds


@pytest.fixture(scope="module")
def loop(recipe, tmp_path_factory):
    return Trainer(recipe, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def found(loop):
    return Examiner(loop).examine(PLENTY)


def mean_nats(model, sequences):
    """Of (ids, learned) pairs, each alone: nats per learned token, and how many there are."""
    nats = []
    for ids, learned in sequences:
        with torch.no_grad():
            scores = torch.log_softmax(model(torch.tensor([ids]))[0].double(), -1)
        nats += [-float(scores[t - 1, ids[t]]) for t in range(1, len(ids)) if learned[t]]
    return sum(nats) / len(nats), len(nats)


def test_the_losses_are_the_model_s(loop, found, recipe, chat_model):
    model, tokenizer = Llama.from_pretrained(chat_model), loop.tokenizer
    loss, count = mean_nats(model, [(one.ids.tolist(), one.learned) for one in loop.dataset.val.sequences])
    assert found.validation.loss == pytest.approx(loss, abs=1e-5) and found.validation.tokens == count

    text = "".join(document.text for document in open_source(recipe.held_out).documents("val"))
    ids = tokenizer.encode(text, add_bos=False)
    windows = [ids[start : start + recipe.context + 1] for start in range(0, len(ids) - 1, recipe.context)]
    loss, count = mean_nats(model, [(window, [True] * len(window)) for window in windows])
    assert found.held_out.loss == pytest.approx(loss, abs=1e-5) and found.held_out.tokens == count == len(ids) - 1
    bits = loss / np.log(2) * count / len(tokenizer.decode(ids[1:]).encode())
    assert found.held_out.bits_per_byte == pytest.approx(bits, rel=1e-5)


def test_the_answers_are_greedy(loop, found, chat_model):
    model = Llama.from_pretrained(chat_model)
    assert len(found.answers) == len(loop.dataset.val.sequences) and all(one.shown for one in found.answers[:SHOWN])
    for sequence, answer in zip(loop.dataset.val.sequences, found.answers, strict=True):
        first = int(np.flatnonzero(sequence.learned)[0])
        ids = sequence.ids[:first].tolist()
        assert answer.prompt == loop.tokenizer.decode(ids, skip_special=False)
        expected = loop.tokenizer.decode(sequence.ids[first:].tolist())
        assert answer.expected == expected and not answer.right, "an untrained model"
        for _ in range(2):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        assert answer.text.startswith(loop.tokenizer.decode(ids[first:], continues=True))


class Writer:
    """A backend that writes given texts, token by token, and counts them."""

    def __init__(self, loop, texts, clock=None):
        self.device, self.use_averaged_weights = loop.backend.device, loop.backend.use_averaged_weights
        self.tokenizer, self.texts, self.clock = loop.tokenizer, texts, clock
        self.end, self.written = min(loop.tokenizer.stop_ids), []

    def eval_loss_sum(self, tokens, targets, documents=None):
        return 1.0

    def generate(self, prompt_ids, params):
        text = self.texts[len(self.written)]
        self.written.append(0)
        ids = self.tokenizer.encode(text.removesuffix("<end>"), add_bos=False)
        for token in [*ids, *[self.end] * text.endswith("<end>")][: params.max_tokens]:
            self.written[-1] += 1
            if self.clock:
                self.clock.now += 1.0
            yield token


def examiner_of(loop, backend, **options):
    parts = {name: getattr(loop, name) for name in ("settings", "dataset", "tokenizer", "validator", "ranks")}
    return Examiner(SimpleNamespace(**parts, backend=backend), **options)


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("{}<end>", True),
        ("{} <end>", True),
        ("{}", False),
        ("{} and<end>", False),
        ("It<end>", False),
        ("<end>", False),
    ],
)
def test_right_is_the_whole_answer_and_its_end(loop, written, right):
    answers = [opening.answer for opening in loop.dataset.openings(QUESTIONS, 96)]
    found = examiner_of(loop, Writer(loop, [written.format(answer) for answer in answers])).examine(PLENTY)
    assert [answer.right for answer in found.answers] == [right] * len(answers)
    assert found.num_right == right * len(answers)


def test_an_answer_that_is_not_shown_is_given_up_once_it_is_wrong(loop, monkeypatch):
    from nano_llama.training.finetune import examination

    monkeypatch.setattr(examination, "SHOWN", 1)
    writer = Writer(loop, ["It was never a dog, I think.<end>"] * 4)
    found = examiner_of(loop, writer).examine(PLENTY)
    assert found.answers[0].text.startswith("It was never a") and [one.shown for one in found.answers[:2]] == [
        True,
        False,
    ]
    assert max(writer.written[1:]) < writer.written[0], "the others end at the first wrong word"


def test_time_is_kept_and_the_second_time_the_same_is_asked(loop):
    clock = HandClock()
    answers = [opening.answer + "<end>" for opening in loop.dataset.openings(QUESTIONS, 96)]
    before = examiner_of(loop, Writer(loop, answers, clock), clock=clock).examine(30.0)
    assert 0 < len(before.answers) < len(answers) and before.seconds <= 31.0
    after = examiner_of(loop, Writer(loop, answers), clock=clock).examine(PLENTY, before)
    assert len(after.answers) == len(before.answers)
    part = Examination(None, None, [], 0.0)
    assert not examiner_of(loop, Writer(loop, answers), clock=clock).examine(PLENTY, part).answers


def test_the_head_that_was_measured_before_is_measured_again(loop, found):
    first = 10  # tokens: fewer than the first batch has
    like = replace(found, held_out=replace(found.held_out, tokens=first))
    again = Examiner(loop).examine(PLENTY, like)
    assert first <= again.held_out.tokens < found.held_out.tokens and again.validation == found.validation


def test_it_is_kept_as_json(found):
    assert Examination.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_held_out_text(loop, tmp_path):
    tokenizer: Tokenizer = loop.tokenizer
    assert held_out_text("none", tokenizer, 96) is None
    stdlib = held_out_text("stdlib", tokenizer, 96)
    assert stdlib.num_targets == TOKENS and len(list(stdlib.batches())) == stdlib.num_batches
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match="empty"):
        held_out_text(str(tmp_path / "empty.txt"), tokenizer, 96)
