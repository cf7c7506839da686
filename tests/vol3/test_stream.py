"""A stream and the plain answer say the same, field by field: stop strings and characters cut anywhere, n samples."""

import asyncio
import codecs
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.stub_engine import END, ByteTokenizer, ScriptedRunner
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.async_engine import AsyncEngine
from nano_llama.vol3_engine.llm import LLM


class PieceTokenizer(ByteTokenizer):
    """Token i stands for the i-th of some byte strings, which may end within a character; other tokens have no text."""

    def __init__(self, pieces):
        self.pieces = dict(enumerate(pieces))

    def decode(self, ids, *, skip_special=True, continues=False):
        return b"".join(self.pieces.get(i, b"") for i in ids).decode(errors="replace")

    def decoder(self, skip_special=True, *, continues=False):
        return PieceDecoder(self.pieces)


class PieceDecoder:
    def __init__(self, pieces):
        self.pieces, self.utf8 = pieces, codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token):
        return self.utf8.decode(self.pieces.get(token, b""))

    def finish(self):
        return self.utf8.decode(b"", final=True)


def joined(pieces):
    """What a client that only sees the pieces of a stream knows of each sample."""
    samples = {}
    for piece in pieces:
        sample = samples.setdefault(piece.index, {"text": "", "token_ids": [], "logprobs": [], "ends": []})
        sample["text"] += piece.text
        sample["token_ids"].append(piece.token_id)
        sample["logprobs"] += piece.logprobs or []
        sample["ends"].append((piece.finish_reason, piece.stop_reason))
    return [samples[index] for index in sorted(samples)]


def check(pieces, expected):
    assert [piece.output for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].output == expected
    for sample, output in zip(joined(pieces), expected.outputs, strict=True):
        assert (sample["text"], sample["token_ids"]) == (output.text, output.token_ids)
        assert sample["logprobs"] == (output.logprobs or [])
        assert sample["ends"][:-1] == [(None, None)] * (len(sample["ends"]) - 1)
        assert sample["ends"][-1] == (output.finish_reason, output.stop_reason) and output.finish_reason


def tokens_before(pieces, place):
    """Independently of the engine: how many of the tokens begin before that character of their common text."""
    begins, seen = [], b""
    for piece in pieces:
        begins.append(len(codecs.getincrementaldecoder("utf-8")("replace").decode(seen)))
        seen += piece
    return sum(begin < place for begin in begins)


TEXTS = st.text("ab<é🦙", min_size=1, max_size=24)


@settings(deadline=None)
@given(TEXTS, st.sets(st.integers(1, 60)), st.lists(st.text("ab<é🦙", min_size=1, max_size=3), max_size=2), st.data())
def test_a_tokens_logprobs_travel_with_its_text(text, cuts, stop, data):
    """The tokens are the bytes of a text, cut anywhere; a stop string is part of it as often as not."""
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(text) - 1))
        stop = [*stop, text[start : start + data.draw(st.integers(1, 4))]]
    raw = text.encode()
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[a:b] for a, b in itertools.pairwise(edges)]
    script = bytes(range(len(pieces))).decode("latin1")
    llm = LLM.from_runner(ScriptedRunner({"\x7f": script}), PieceTokenizer(pieces))
    params = SamplingParams(temperature=0.0, max_tokens=60, stop=stop or None, logprobs=1)
    (expected,) = llm.generate([[0x7F]], params)
    streamed = list(llm.stream([0x7F], params))
    check(streamed, expected)

    output = expected.outputs[0]
    used = [pieces[token] for token in output.token_ids if token != END]
    if output.finish_reason == "stop" and output.stop_reason is not None:
        known = tokens_before(used, len(output.text))
    else:
        known = len(output.token_ids)
    assert [next(iter(entries)) for entries in output.logprobs] == output.token_ids[:known]
    assert output.cumulative_logprob == sum(next(iter(entries.values())).logprob for entries in output.logprobs)
    shown, told = "", 0
    for piece in streamed[:-1]:  # no token is told of before its text
        shown, told = shown + piece.text, told + len(piece.logprobs)
        assert told == tokens_before(used, len(shown))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(0, 99), st.integers(0, 20), st.integers(1, 3), st.booleans())
def test_n_samples_of_noise(n, seed, start, length, with_logprobs):
    """Random bytes: mostly broken characters. The stop string is a part of the first sample's text."""
    params = SamplingParams(n=n, seed=seed, max_tokens=30, logprobs=2 if with_logprobs else None)
    llm = LLM.from_runner(ScriptedRunner(), ByteTokenizer())
    stop = llm.generate("noise", params)[0].text[start : start + length]
    params = params.replace(stop=stop or None)
    (expected,) = llm.generate("noise", params)
    check(list(llm.stream("noise", params)), expected)

    async def ask():
        async with AsyncEngine(llm) as engine:
            return [piece async for piece in engine.stream("noise", params)]

    check(asyncio.run(ask()), expected)


def test_what_a_stop_string_cut_off_is_told_nowhere():
    """The tokens of "END" are in token_ids, and their logprobs in no piece and no output."""
    llm = LLM.from_runner(ScriptedRunner({"q": "one END two"}), ByteTokenizer())
    params = SamplingParams(temperature=0.0, max_tokens=20, stop="END", logprobs=0)
    pieces = list(llm.stream("q", params))
    output = pieces[-1].output.outputs[0]
    assert bytes(output.token_ids) == b"one END" and output.text == "one "
    assert [next(iter(entries.values())).decoded_token for entries in output.logprobs] == list("one ")
    assert [len(piece.logprobs) for piece in pieces] == [1, 1, 1, 1, 0, 0, 0]


def test_held_back_logprobs_come_with_their_text():
    llm = LLM.from_runner(ScriptedRunner({"q": "aENé"}), ByteTokenizer())
    params = SamplingParams(temperature=0.0, max_tokens=20, stop="END", logprobs=0)
    pieces = list(llm.stream("q", params))
    assert [(piece.text, len(piece.logprobs)) for piece in pieces] == [
        ("a", 1), ("", 0), ("", 0), ("", 0), ("ENé", 4), ("", 1),
    ]  # fmt: skip


def test_without_a_tokenizer_logprobs_come_at_the_end():
    llm = LLM.from_runner(ScriptedRunner({"q": "ab"}, eos_token_id=END), None)
    pieces = list(llm.stream([ord("q")], SamplingParams(temperature=0.0, logprobs=0)))
    assert [len(piece.logprobs) for piece in pieces] == [0, 0, 3]
