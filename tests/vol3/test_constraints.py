"""Constraints in the engine: what random models write under them is judged by other libraries; nothing else changes."""

import asyncio
import json
import re
import string

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.constrained import byte_level, characters, noise_llm, sentencepiece
from nano_llama.core.errors import EnvironmentFault, NanoLlamaError, UserError
from nano_llama.core.sampling import SamplingParams, sample
from nano_llama.vol3_engine.async_engine import AsyncEngine
from nano_llama.vol3_engine.constraints import ConstraintCompiler
from nano_llama.vol3_engine.llm import LLM
from nano_llama.vol3_engine.sampler import Sampler
from nano_llama.vol3_engine.sequence import Sequence
from nano_llama.vol3_engine.text import TextStream

MAKERS = {"byte-level": byte_level, "characters": characters, "sentencepiece": sentencepiece}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["a", "bé", 3]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=MAKERS)
def llm(request):
    with noise_llm(MAKERS[request.param](), extra_rows=3) as llm:
        yield llm


@pytest.fixture(scope="module")
def bpe():
    with noise_llm(byte_level()) as llm:
        yield llm


def write(llm, structured_outputs, prompt="x", **params):
    params = SamplingParams(max_tokens=params.pop("max_tokens", 400), structured_outputs=structured_outputs, **params)
    return llm.generate(prompt, params)[0].outputs


# -- what is written --------------------------------------------------------------------------------------------------

words = st.text(string.ascii_letters + ' "\\é🦙/', min_size=1, max_size=6)
leaves = st.one_of(
    st.builds(lambda low: {"type": "integer", "minimum": low, "maximum": low + 70}, st.integers(-99, 999)),
    st.builds(lambda size: {"type": "string", "maxLength": size}, st.integers(0, 5)),
    st.just({"type": "string", "pattern": "^[a-c]{2,4}-[0-9]$"}),
    st.just({"type": "string", "format": "date"}),
    st.builds(lambda some: {"enum": some}, st.lists(words | st.integers(-(2**53), 2**53), min_size=1, max_size=4)),
    st.builds(lambda value: {"const": value}, words),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}]),
)  # fmt: skip


def compound(inner):
    objects = st.builds(
        lambda properties: {
            "type": "object", "properties": properties, "required": [*properties][:2], "additionalProperties": False,
        },
        st.dictionaries(words, inner, min_size=1, max_size=3),
    )  # fmt: skip
    arrays = st.builds(lambda item: {"type": "array", "items": item, "minItems": 1, "maxItems": 2}, inner)
    return st.one_of(objects, arrays, st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=3)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=st.recursive(leaves, compound, max_leaves=6), seed=st.integers(0, 9))
def test_random_schemas_are_followed(llm, schema, seed):
    """Judged by jsonschema-rs, which has nothing in common with llguidance. A vocabulary may lack a character."""
    try:
        (out,) = write(llm, {"json": schema}, seed=seed)
    except UserError as error:
        assert not llm.tokenizer.byte_level and "no token of this model" in error.message
        return
    if out.finish_reason == "stop":
        assert jsonschema_rs.is_valid(schema, json.loads(out.text)), out.text
    else:
        assert out.finish_reason == "length" and len(out.token_ids) == 400


@pytest.mark.parametrize("regex", ["[a-f]{3}", "(yes|no)+!", r"\d{3}-[^ \n]{1,4}", ".{0,9}z", "é?[🦙🙂]{2}", "a*b"])
def test_an_expression_is_matched_as_a_whole(llm, regex):
    for seed in range(8):
        (out,) = write(llm, {"regex": regex}, seed=seed, max_tokens=60)
        if out.finish_reason == "stop":
            assert re.fullmatch(regex, out.text), out.text


def test_a_choice_is_exactly_one_of_the_texts(llm):
    texts = ['"quoted" \\n', " a space", "naïve 日本語", "🦙🙂", "{}", "a\nb", "a", "ab", "abc"]
    found = {out.text for out in write(llm, {"choice": texts}, n=60, seed=0)}
    assert found <= set(texts) and len(found) > 1


@pytest.mark.parametrize(
    "grammar",
    ['start: pair ("," pair)*\npair: /[a-z]{1,3}/ "=" NUMBER\nNUMBER: /[0-9]{1,2}/',
     'root ::= pair ("," pair)*\npair ::= [a-z] [a-z]? [a-z]? "=" [0-9] [0-9]?'],
    ids=["Lark", "GBNF"],
)  # fmt: skip
def test_a_grammar_in_either_syntax(bpe, grammar):
    for out in write(bpe, {"grammar": grammar}, n=12, seed=1, max_tokens=60):
        form = r"([a-z]{1,3}=\d{1,2},)*" + (r"[a-z]{1,3}=\d{1,2}" if out.finish_reason == "stop" else ".*")
        assert re.fullmatch(form, out.text), out.text


def test_nested_brackets_which_no_expression_could_describe(bpe):
    grammar = 'start: "(" (start | /[a-z]/)? ")"'
    for out in write(bpe, {"grammar": grammar}, n=20, seed=3, max_tokens=40):
        if out.finish_reason == "stop":
            inner = out.text.strip("()")
            opened = out.text.count("(")
            assert out.text == "(" * opened + inner + ")" * opened and len(inner) <= 1


def test_white_space_in_json_is_bounded(llm):
    for schema in (True, PERSON):
        for out in write(llm, {"json": schema}, n=8, seed=5, max_tokens=200):
            outside = re.sub(r'"(\\.|[^"\\])*("|$)', '""', out.text)
            assert not re.search(r"\s{9}", outside), out.text
    (out,) = write(llm, {"json": {**PERSON, "x-guidance": {"whitespace_flexible": False}}}, seed=5)
    assert json.dumps(json.loads(out.text), separators=(",", ":"), ensure_ascii=False) == out.text


def test_a_forced_call_of_a_tool(bpe):
    """Schemas as a server makes them of tools: a constant name beside the schema of its arguments, and nothing else."""
    tools = {"weather": {"properties": {"city": {"enum": ["Rome", "Oslo"]}}}, "add": {"$ref": "#/$defs/two"}}
    calls = [
        {"type": "object", "properties": {"name": {"const": name}, "arguments": {
            "type": "object", "additionalProperties": False, **arguments}},
         "required": ["name", "arguments"], "additionalProperties": False}
        for name, arguments in tools.items()
    ]  # fmt: skip
    two = {"properties": {"a": {"type": "integer", "maximum": 9}, "b": {"type": "integer", "maximum": 9}}}
    schema = {"anyOf": calls, "$defs": {"two": {"type": "object", **two}}}
    names = set()
    for out in write(bpe, {"json": schema}, n=12, seed=0, max_tokens=120):
        if out.finish_reason == "stop":
            call = json.loads(out.text)
            assert set(call) == {"name", "arguments"}
            names.add(call["name"])
    assert names == set(tools)


# -- how it ends ------------------------------------------------------------------------------------------------------


def test_it_ends_with_the_token_that_completes_the_text(llm):
    (out,) = write(llm, {"regex": "[ab]{5}"}, ignore_eos=False)
    assert (out.finish_reason, out.stop_reason) == ("stop", None)
    assert llm.tokenizer.decode(out.token_ids, continues=True) == out.text, "no token for the end: no step is wasted"
    assert len(llm.engine.runner.steps) and not llm.engine.scheduler.pool.ref_counts


def test_at_max_tokens_it_is_cut(bpe):
    (out,) = write(bpe, {"regex": "[ab]{30}"}, max_tokens=5)
    assert out.finish_reason == "length" and len(out.token_ids) == 5 and re.fullmatch("[ab]+", out.text)
    (whole,) = write(bpe, {"regex": "[ab]{30}"}, max_tokens=60, seed=0)
    (exact,) = write(bpe, {"regex": "[ab]{30}"}, max_tokens=len(whole.token_ids), seed=0)
    assert exact.text == whole.text and exact.finish_reason == "stop", "complete with the last token allowed"


def test_the_models_end_comes_only_where_the_text_is_complete(bpe):
    (end,) = bpe.tokenizer.stop_ids
    favoured = {"logit_bias": {end: 100.0}, "temperature": 0.0}
    (out,) = write(bpe, {"regex": "(ab)+c*"}, **favoured)
    assert (out.text, out.token_ids[-1], out.finish_reason) == ("ab", end, "stop")
    (out,) = write(bpe, {"regex": "(ab)+c*"}, **favoured, min_tokens=9)
    assert out.text.startswith("abab") and out.token_ids[-1] == end and len(out.token_ids) >= 10
    (out,) = write(bpe, {"regex": "(ab)+c{0,3}"}, **favoured, ignore_eos=True, max_tokens=400)
    assert end not in out.token_ids and (out.finish_reason == "length" or out.text.endswith("ccc"))
    (out,) = write(bpe, {"regex": "ab"}, **favoured, min_tokens=9)
    assert (out.text, out.finish_reason) == ("ab", "stop"), "the constraint is stronger than min_tokens"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_token_that_must_come_and_may_not_is_a_contradiction(bpe, temperature):
    """As an error that says so, where it would look as if the weights were broken."""
    end = bpe.tokenizer.encode("b")[0]
    asked = {"min_tokens": 3, "stop_token_ids": [end], "temperature": temperature}
    with pytest.raises(UserError, match="min_tokens=3 contradicts structured_outputs and stop_token_ids: after 1 t"):
        write(bpe, {"regex": "ab*"}, **asked)
    (out,) = write(bpe, {"regex": "a(b|c)cc"}, **asked)
    assert out.text == "accc"


def test_stop_strings_cut_a_constrained_text(bpe):
    (out,) = write(bpe, {"regex": "[ab]{20}c"}, stop="ba", seed=0)
    assert (out.finish_reason, out.stop_reason) == ("stop", "ba") and re.fullmatch("a*b*", out.text)


def test_a_model_without_an_end_of_text_ends_where_nothing_may_follow():
    llm = noise_llm(characters())
    assert not llm.tokenizer.stop_ids
    (out,) = write(llm, {"regex": "a{1,3}"}, max_tokens=10)
    assert (out.text, out.finish_reason) == ("aaa", "stop")
    (out,) = write(llm, {"regex": "a+"}, max_tokens=10)
    assert (out.text, out.finish_reason) == ("a" * 10, "length")


def test_special_tokens_and_rows_beyond_the_tokenizer_never_come():
    llm = noise_llm(byte_level(), extra_rows=50)
    bias = {token: 100.0 for token in range(llm.tokenizer.vocab_size, llm.config.vocab_size)}
    bias |= dict.fromkeys(llm.tokenizer.special_ids, 100.0)
    (out,) = write(llm, {"regex": "(.|\n){40,60}"}, logit_bias=bias, max_tokens=300)
    assert bias.keys() & set(out.token_ids[:-1]) == set() and 40 <= len(out.text) <= 60


# -- beside everything else -------------------------------------------------------------------------------------------

MIXED = [
    {"structured_outputs": {"json": PERSON}, "temperature": 1.0},
    {},
    {"structured_outputs": {"choice": ["one", "two", "three"]}, "top_p": 0.5},
    {"structured_outputs": {"regex": "[a-z ]{5,30}"}, "top_k": 3, "repetition_penalty": 1.3, "logit_bias": {65: 9.0}},
    {"structured_outputs": {"json": PERSON}, "min_p": 0.2, "presence_penalty": 0.5, "logprobs": 2, "n": 3},
    {"structured_outputs": {"json": True}, "temperature": 0.0, "min_tokens": 4},
    {"temperature": 0.0},
]


@pytest.mark.parametrize("cache_tokens", [4096, 200], ids=["room for all", "with preemptions"])
def test_each_request_gives_what_it_gives_alone(bpe, cache_tokens):
    params = [SamplingParams(max_tokens=60, seed=seed, **given) for seed, given in enumerate(MIXED)]
    prompts = [f"prompt {number}" for number in range(len(params))]
    alone = [bpe.generate(prompt, one)[0] for prompt, one in zip(prompts, params, strict=True)]
    with noise_llm(byte_level(), kv_cache_memory=cache_tokens, context=128) as together:
        for out, wanted in zip(together.generate(prompts, params), alone, strict=True):
            assert out.outputs == wanted.outputs


def test_samples_of_one_request_have_their_own_state_and_seeds(bpe):
    samples = write(bpe, {"json": PERSON}, n=3, seed=7)
    assert len({out.text for out in samples}) == 3
    for out in samples:
        assert write(bpe, {"json": PERSON}, seed=out.seed)[0].text == out.text


def test_streams_equal_the_whole(llm):
    params = SamplingParams(max_tokens=200, structured_outputs={"json": PERSON}, seed=4)
    pieces = [*llm.stream("x", params)]
    assert "".join(map(str, pieces)) == pieces[-1].output.text == llm.generate("x", params)[0].text


def test_logprobs_stay_the_models_own(bpe):
    (out,) = write(bpe, {"choice": ["zebra"]}, temperature=0.0, logprobs=0)
    ids = list(bpe.tokenizer.encode("x"))
    for token, entries in zip(out.token_ids, out.logprobs, strict=True):
        row = bpe.engine.runner.logits(tuple(ids)).astype(np.float64)
        assert entries[token].logprob == pytest.approx(row[token] - np.log(np.exp(row - row.max()).sum()) - row.max())
        ids.append(token)


def test_after_a_step_that_failed_it_goes_on_where_it_was(bpe):
    params = SamplingParams(max_tokens=200, structured_outputs={"json": PERSON}, seed=2)
    wanted = bpe.generate("x", params)[0].text
    llm = noise_llm(byte_level())
    request, events, fail = llm.request("x", params), [], iter([3, 9])
    execute, place = llm.engine.runner.execute, next(fail)

    def failing(batch):
        nonlocal place
        if place == len(events):
            place = next(fail, None)
            raise OSError("gone for a moment")
        return execute(batch)

    llm.engine.runner.execute = failing
    llm.engine.add(request.sequences[0], events.append)
    failures = 0
    while llm.engine.has_work:
        try:
            llm.engine.step()
        except OSError:
            failures += 1
    assert failures == 2 and llm.output_of(request).text == wanted


def test_in_the_async_engine(bpe):
    async def main():
        async with AsyncEngine(noise_llm(byte_level())) as engine:
            params = SamplingParams(max_tokens=60, structured_outputs={"choice": ["left", "right"]}, seed=0)
            with pytest.raises(UserError, match="strin"):
                await engine.generate("x", params.replace(structured_outputs={"json": {"type": "strin"}}))
            return await asyncio.gather(*(engine.generate(str(i), params) for i in range(6)))

    assert {out.text for out in asyncio.run(main())} <= {"left", "right"}


@pytest.mark.parametrize("given", MIXED[1:], ids=str)
def test_the_reference_draws_the_same_from_masked_logits(bpe, given):
    """core/sampling, which knows no constraint, over logits that are -inf where a token is not allowed."""
    shape = {name: value for name, value in given.items() if name not in ("structured_outputs", "n", "logprobs")}
    vocab = bpe.config.vocab_size
    compiler = ConstraintCompiler(bpe.tokenizer, vocab, bpe.tokenizer.stop_ids)
    rng = np.random.default_rng(0)
    for seed in range(30):
        params = SamplingParams(**shape, structured_outputs={"regex": "[a-z]+[0-9]{2}|🦙.*"})
        made = Sequence(
            request=0, index=0, prompt_ids=[1], params=params, seed=seed, text=TextStream(bpe.tokenizer.decoder()),
            max_length=99, constraint=compiler.compile(params.structured_outputs), end_ids=bpe.tokenizer.stop_ids,
        )  # fmt: skip
        for _ in range(6):
            logits = (rng.normal(size=vocab) * rng.choice([0.1, 1, 5])).astype(np.float32)
            masked = np.where(made.constraint.allowed(), logits, -np.inf)
            wanted = sample(masked, params, [1], made.output_ids, seed=seed, end_ids=made.stop_ids)
            assert Sampler(vocab).sample(logits[None], [made]) == [wanted] and np.isfinite(masked[wanted])
            made.append(wanted)
            if made.finished:
                break


def test_the_real_models_vocabulary(smollm2):
    """Pieces that cross the places where the grammar changes: `":` and `"}` are single tokens."""
    with LLM(smollm2, kv_cache_memory="64MB") as llm:
        messages = [{"role": "user", "content": "Describe a llama as JSON."}]
        for structured_outputs in ({"json": PERSON}, {"choice": ["🦙 yes", "no"]}):
            params = SamplingParams(max_tokens=90, structured_outputs=structured_outputs, seed=1, n=2)
            for out in llm.chat(messages, params)[0].outputs:
                assert out.finish_reason == "stop"
                if "json" in structured_outputs:
                    assert jsonschema_rs.is_valid(PERSON, json.loads(out.text))
                    pieces = [llm.tokenizer.token_bytes(token) for token in out.token_ids]
                    assert any(b'"' in piece and len(piece) > 1 for piece in pieces)
                else:
                    assert out.text in structured_outputs["choice"]


# -- failures ---------------------------------------------------------------------------------------------------------


def test_without_llguidance_the_extra_is_named(bpe, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("nano_llama.core.errors.import_module", missing)
    with pytest.raises(
        EnvironmentFault, match=r"structured_outputs needs the package 'llguidance'(.|\n)*\[structured\]"
    ):
        write(bpe, {"choice": ["a"]})


def test_a_model_without_a_tokenizer_cannot_be_constrained(bpe):
    llm = LLM.from_runner(bpe.engine.runner, None)
    with pytest.raises(UserError, match="structured_outputs needs a tokenizer"):
        llm.request([1], SamplingParams(structured_outputs={"choice": ["a"]}))


@pytest.mark.parametrize("structured_outputs", [{"choice": ["🦢"]}, {"regex": "[一-二]{3}"}], ids=str)
def test_a_text_that_the_vocabulary_cannot_write_is_refused_at_once(structured_outputs):
    with pytest.raises(UserError, match="no token of this model's vocabulary"):
        write(noise_llm(characters()), structured_outputs)


def test_a_dead_end_and_broken_logits_fail_their_request_alone():
    """A character that is lacking further on; and a NaN, even at a token that is not allowed."""
    constrained = SamplingParams(max_tokens=40, structured_outputs={"regex": "aaa(🦢|🦩)b"}, seed=0)
    llm = noise_llm(characters(), broken=9)
    good = SamplingParams(max_tokens=4, structured_outputs={"regex": "[ab]{9}"}, seed=0)
    events = []
    requests = [
        llm.request("dead", constrained),
        llm.request("broken", good.replace(max_tokens=20)),
        llm.request("ok", good),
    ]
    for request in requests:
        llm.engine.add(request.sequences[0], events.append)
    while llm.engine.has_work:
        llm.engine.step()
    failed = {event.sequence: event.error for event in events if event.error}
    dead, broken, ok = (request.sequences[0] for request in requests)
    assert "no token of this model's vocabulary" in failed[dead].message and isinstance(failed[dead], UserError)
    assert "largest logit is nan" in failed[broken].message and type(failed[broken]) is NanoLlamaError
    assert ok not in failed and re.fullmatch("[ab]{4}", llm.output_of(requests[2]).text)
    assert not llm.engine.scheduler.pool.ref_counts
