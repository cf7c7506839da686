"""Text beyond the context: what LLM.stream gives where it fits, and one continuous text where it does not."""

import pytest

from nano_llama.cli.past_context import generate_past_context
from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.llm import LLM

PROMPT = "the quick"


@pytest.fixture(scope="module")
def llm(tiny_model):
    return LLM(tiny_model, runner="numpy")  # a context of 64 tokens


def run(llm, prompt=PROMPT, **params):
    windows = []
    pieces = list(generate_past_context(llm, prompt, SamplingParams(**params), windows.append))
    assert all(piece.output is None for piece in pieces[:-1])
    done = pieces[-1].output.outputs[0]
    assert "".join(piece.text for piece in pieces) == done.text
    assert [piece.token_id for piece in pieces] == done.token_ids
    if "logprobs" in params:
        assert [each for piece in pieces for each in piece.logprobs] == done.logprobs
    return done, windows


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.0}, {"seed": 3}, {"seed": 3, "stop": "e"}, {"seed": 4, "top_k": 5},
        {"temperature": 0.0, "logprobs": 2}, {"seed": 3, "stop": "e", "logprobs": 0},
    ],
)  # fmt: skip
def test_text_that_fits_is_that_of_stream(llm, params):
    done, windows = run(llm, max_tokens=20, **params)
    (*_, last) = llm.stream(PROMPT, SamplingParams(max_tokens=20, **params))
    theirs = last.output.outputs[0]
    assert (done.text, done.token_ids, done.finish_reason, done.seed) == (
        theirs.text, theirs.token_ids, theirs.finish_reason, theirs.seed,
    )  # fmt: skip
    assert (done.logprobs, done.cumulative_logprob) == (theirs.logprobs, theirs.cumulative_logprob)
    assert windows == []


def test_longer_text_is_made_of_windows(llm):
    done, windows = run(llm, temperature=0.0, max_tokens=150, ignore_eos=True, logprobs=0)
    ids = llm.tokenizer.encode(PROMPT)
    assert len(done.token_ids) == 150
    assert [token for each in done.logprobs for token in each] == done.token_ids
    assert done.finish_reason == "length"
    assert windows == [32] * len(windows)
    # The same windows by hand: 64 tokens each, the next begins with the last 32.
    params, everything, start = SamplingParams(temperature=0.0, max_tokens=None, ignore_eos=True), list(ids), 0
    while len(everything) < len(ids) + 150:
        (*_, last) = llm.stream(everything[start:], params)
        everything += last.output.outputs[0].token_ids
        start = len(everything) - 32
    assert everything[len(ids) : len(ids) + 150] == done.token_ids
    assert llm.tokenizer.decode(done.token_ids, continues=True) == done.text


def test_the_same_seed_gives_the_same_long_text(llm):
    first, _ = run(llm, seed=9, max_tokens=100, ignore_eos=True)
    again, _ = run(llm, seed=9, max_tokens=100, ignore_eos=True)
    drawn, _ = run(llm, max_tokens=100, ignore_eos=True)
    repeated, _ = run(llm, seed=drawn.seed, max_tokens=100, ignore_eos=True)
    assert first.token_ids == again.token_ids
    assert drawn.token_ids == repeated.token_ids != first.token_ids


def test_a_stop_string_across_two_windows(llm):
    whole, _ = run(llm, seed=2, max_tokens=100, ignore_eos=True)
    seam = len(llm.tokenizer.decode(whole.token_ids[: 64 - len(llm.tokenizer.encode(PROMPT))], continues=True))
    stop = whole.text[seam - 4 : seam + 4]
    cut, _ = run(llm, seed=2, max_tokens=100, ignore_eos=True, stop=stop)
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", stop)


def test_a_prompt_that_fills_the_context_is_refused(llm):
    with pytest.raises(UserError, match="context"):
        run(llm, "the " * 100, max_tokens=5)
