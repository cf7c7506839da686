"""TextStream: pieces join to the text, without half characters and stop strings, however it is cut into tokens."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.stub_engine import ByteDecoder
from nano_llama.vol3_engine.text import TextStream


class Pieces:
    """A decoder whose token i is the i-th of some given strings."""

    def __init__(self, pieces, tail=""):
        self.pieces, self.tail = pieces, tail

    def push(self, token):
        return self.pieces[token]

    def finish(self):
        return self.tail


def run(pieces, stop=(), tail="", min_tokens=0):
    stream = TextStream(Pieces(pieces, tail), stop, min_tokens)
    out = []
    for token in range(len(pieces)):
        out.append(stream.push(token))
        if stream.stopped_by is not None:
            break
    out.append(stream.finish())
    assert "".join(out) == stream.text
    return stream, out


def test_without_stop_strings_nothing_is_held_back():
    stream, out = run(["Hel", "lo", "", " you"])
    assert out == ["Hel", "lo", "", " you", ""] and stream.stopped_by is None


def test_a_stop_string_is_cut_off_with_what_follows():
    stream, out = run(["one END", " two"], ["END"])
    assert out == ["one ", ""] and stream.stopped_by == "END"


def test_a_possible_beginning_is_held_back_until_it_is_ruled_out():
    _, out = run(["a<", "|", "x", "<|e"], ["<|end|>"])
    assert out == ["a", "", "<|x", "", "<|e"]


def test_a_stop_string_over_several_tokens():
    stream, out = run(["a<", "|en", "d|", ">b"], ["<|end|>"])
    assert out == ["a", "", "", "", ""] and stream.stopped_by == "<|end|>"


def test_the_earliest_match_wins_then_the_order_of_the_list():
    assert run(["x yy z"], ["z", "yy"])[0].stopped_by == "yy"
    assert run(["abc"], ["ab", "abc"])[0].stopped_by == "ab"
    assert run(["abc"], ["abc", "ab"])[0].stopped_by == "abc"


def test_an_overlapping_beginning_is_found():
    stream, _ = run(["a", "a", "a", "b"], ["aab"])
    assert stream.text == "a" and stream.stopped_by == "aab"


def test_the_decoders_last_bytes_may_complete_a_stop_string():
    stream, _ = run(["say E"], ["END"], tail="ND!")
    assert stream.text == "say " and stream.stopped_by == "END"
    assert run(["say E"], ["END"], tail="\ufffd")[0].text == "say E\ufffd"


@given(
    st.text("ab<|>", max_size=30),
    st.lists(st.text("ab<|>", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 30), max_size=8),
)
def test_any_cut_gives_the_result_of_searching_the_whole_text(text, stop, cuts):
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    stream, _ = run(pieces, stop)
    if not any(s in text for s in stop):
        assert stream.text == text and stream.stopped_by is None
        return
    # Which of several overlapping stop strings is found depends on the cut; that one is found does not.
    assert stream.stopped_by in stop
    assert text.startswith(stream.text + stream.stopped_by)
    assert not any(s in stream.text for s in stop)


@given(
    st.lists(st.text("ab", max_size=3), max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(0, 12),
)
def test_within_min_tokens_no_stop_string_ends_the_text(pieces, stop, min_tokens):
    """The plain way: look at the text after each token, for a stop string that ends in that token."""
    expected = ("".join(pieces), None)
    for count in range(min_tokens + 1, len(pieces) + 1):
        known, text = len("".join(pieces[: count - 1])), "".join(pieces[:count])
        places = [
            (place, order)
            for order, string in enumerate(stop)
            for place in range(len(text))
            if text.startswith(string, place) and place + len(string) > known
        ]
        if places:
            place, order = min(places)
            expected = (text[:place], stop[order])
            break
    stream, _ = run(pieces, stop, min_tokens=min_tokens)
    assert (stream.text, stream.stopped_by) == expected


@pytest.mark.parametrize("text", ["naïve — 東京 🦙🦙", "e\u0301"])
def test_pieces_never_hold_half_a_character(text):
    stream = TextStream(ByteDecoder(), ["🦙🦙"])
    out = [stream.push(byte) for byte in text.encode()]
    out.append(stream.finish())
    assert "\ufffd" not in "".join(out)
    assert "".join(out) == text.replace("🦙🦙", "")
