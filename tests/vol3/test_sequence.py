"""Sequence: every way it can end, and which tokens and text remain."""

import pytest

from helpers.stub_engine import END, ByteDecoder
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.sequence import Sequence, Status
from nano_llama.vol3_engine.text import TextStream

PROMPT = (1, 2, 3)


@pytest.fixture
def make():
    def make(max_length=100, **params):
        params = SamplingParams(**params)
        text = TextStream(ByteDecoder(), params.stop_strings)
        return Sequence(
            request=0,
            index=0,
            prompt_ids=PROMPT,
            params=params,
            seed=0,
            text=text,
            max_length=max_length,
            end_ids=frozenset({END}),
        )

    return make


def feed(sequence, ids):
    pieces = []
    for token in ids:
        pieces.append(sequence.append(token))
        if sequence.finished:
            break
    assert "".join(pieces) == sequence.text.text or not sequence.finished
    return (
        sequence.finish_reason,
        sequence.stop_reason,
        sequence.text.text,
        bytes(token for token in sequence.output_ids if token < 256).decode(errors="replace"),
    )


def test_end_of_text(make):
    sequence = make()
    assert feed(sequence, [*b"hi", END, *b"more"]) == ("stop", None, "hi", "hi")
    assert sequence.output_ids == [*b"hi", END]
    assert len(sequence) == 6 and sequence.status is Status.FINISHED


def test_ignore_eos_continues(make):
    assert feed(make(ignore_eos=True, max_length=8), [*b"hi", END, *b"more"]) == ("length", None, "himo", "himo")


def test_a_stop_token_adds_no_text_and_is_the_stop_reason(make):
    assert feed(make(stop_token_ids=[ord("!")]), b"hi!more") == ("stop", ord("!"), "hi", "hi!")
    assert feed(make(stop_token_ids=[ord("!")], ignore_eos=True), b"hi!more") == ("stop", ord("!"), "hi", "hi!")


def test_a_stop_token_that_is_also_the_end_of_text_is_the_stop_reason(make):
    assert feed(make(stop_token_ids=[END]), [*b"hi", END])[1] == END


def test_a_stop_string_keeps_its_tokens(make):
    assert feed(make(stop="END"), b"the END of") == ("stop", "END", "the ", "the END")


def test_length_releases_held_back_text(make):
    sequence = make(max_length=3 + 6, stop="END")
    assert feed(sequence, b"the EN") == ("length", None, "the EN", "the EN")


def test_a_stop_string_completed_by_the_last_token_is_a_stop(make):
    assert feed(make(max_length=3 + 7, stop="END"), b"the END")[:2] == ("stop", "END")


def test_an_end_of_text_at_max_length_is_a_stop(make):
    assert feed(make(max_length=3 + 3), [*b"hi", END])[0] == "stop"


def test_an_incomplete_character_at_the_end_is_replaced(make):
    assert feed(make(max_length=3 + 3), "a🦙".encode())[:3] == ("length", None, "a\ufffd")


def test_an_incomplete_character_before_the_end_of_text(make):
    """Bytes of an unfinished character come out at the end; the reason stays the token's."""
    assert feed(make(), [*b"a", 0xF0, END])[:3] == ("stop", None, "a\ufffd")


def test_a_finished_sequence_takes_no_token(make):
    sequence = make(max_length=4)
    sequence.append(65)
    with pytest.raises(AssertionError, match="finished"):
        sequence.append(66)
