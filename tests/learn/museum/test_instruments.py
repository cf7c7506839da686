"""Each instrument finds nothing in the sound package, and sees the fault that it is there for."""

import numpy as np
import pytest

from nano_llama.data.batches import Batches
from nano_llama.learn.museum import instruments
from nano_llama.learn.museum.instruments import INSTRUMENTS, ask
from nano_llama.vol1_numpy import model as model_module
from nano_llama.vol1_numpy.masks import causal_mask
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.ops.registry import FAST, OpPair


def with_ops(monkeypatch, **pairs):
    sound = instruments.model
    monkeypatch.setattr(instruments, "model", lambda **options: sound(**options).with_ops(**pairs))


def wrong_backward(monkeypatch):
    def backward(dy, cache):
        dx, dweight = FAST.rmsnorm.backward(dy, cache)
        return 1.01 * dx, dweight

    with_ops(monkeypatch, rmsnorm=OpPair(FAST.rmsnorm.forward, backward))


def wrong_layout(monkeypatch):
    def forward(x, cos, sin):
        return FAST.rope.forward(x, cos, sin, "interleaved")

    with_ops(monkeypatch, rope=OpPair(forward, FAST.rope.backward))


def sees_the_next_token(monkeypatch):
    monkeypatch.setattr(
        model_module, "causal_mask", lambda T, past=0: np.tri(T, past + T, past + 1, dtype=bool) | causal_mask(T, past)
    )


def forgets_the_past(monkeypatch):
    tables = model_module.rope_tables
    monkeypatch.setattr(
        model_module, "rope_tables", lambda config, at, dtype: tables(config, np.arange(len(at)), dtype)
    )


def wrong_tiles(monkeypatch):
    def forward(*arguments):
        out, cache = FAST.attention.forward(*arguments[:4])
        return 1.01 * out, cache

    monkeypatch.setattr(instruments, "flash_attention_forward", forward)
    monkeypatch.setattr(instruments, "flash_attention_backward", FAST.attention.backward)


def rows_weigh_alike(monkeypatch):
    sound = Llama._check_batch

    def check(self, tokens, targets):
        tokens, targets, _ = sound(self, tokens, targets)
        return tokens, targets, lambda part: len(part) / len(targets)

    monkeypatch.setattr(Llama, "_check_batch", check)


def knows_too_much(monkeypatch):
    sound = instruments.model
    monkeypatch.setattr(instruments, "model", lambda initializer_range=0.3: sound(0.3))


def shifted_twice(monkeypatch):
    sound = Batches.at

    def at(self, position):
        tokens, targets = sound(self, position)
        return tokens[:, :-1], targets[:, 1:]

    monkeypatch.setattr(Batches, "at", at)


FAULTS = {
    "gradients": wrong_backward,
    "causality": sees_the_next_token,
    "cache": forgets_the_past,
    "twin": wrong_layout,
    "tiles": wrong_tiles,
    "micro-batches": rows_weigh_alike,
    "first loss": knows_too_much,
    "overfit": shifted_twice,
    "reference": wrong_layout,
}


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_an_instrument_sees_its_fault_and_nothing_where_there_is_none(name, monkeypatch):
    if name == "reference":
        pytest.importorskip("torch")
    assert ask(name) == ""
    FAULTS[name](monkeypatch)
    assert ask(name)


def test_a_crash_is_a_finding_and_a_missing_library_is_none(monkeypatch):
    monkeypatch.setitem(INSTRUMENTS, "twin", lambda: 1 / 0)
    assert ask("twin") == "ZeroDivisionError: division by zero"

    def absent():
        raise ModuleNotFoundError("no torch")

    monkeypatch.setitem(INSTRUMENTS, "twin", absent)
    assert ask("twin") is None
