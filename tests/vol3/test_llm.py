"""The public API over a scripted model: inputs, the shape of outputs, streams, errors."""

import numpy as np
import pytest

from helpers.stub_engine import END, ByteTokenizer, ScriptedRunner
from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.llm import LLM

SCRIPT = {"hi": "naïve 🦙. The END is near", "user: hi\nassistant:": "hello"}
LONG = SamplingParams(max_tokens=60, temperature=0.0)


@pytest.fixture
def llm():
    return LLM.from_runner(ScriptedRunner(SCRIPT), ByteTokenizer())


# -- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["hi", [104, 105], (104, 105), np.array([104, 105])])
def test_one_prompt_gives_a_list_of_one(llm, prompt):
    (out,) = llm.generate(prompt, LONG)
    assert out.text == out.outputs[0].text == SCRIPT["hi"]
    assert out.token_ids is out.outputs[0].token_ids
    assert out.prompt_token_ids == [104, 105] and all(type(token) is int for token in out.prompt_token_ids)
    assert out.prompt == ("hi" if isinstance(prompt, str) else None)
    assert out.finished and out.request_id == "0"


def test_lists_of_strings_and_ids_mix_and_keep_their_order(llm):
    outputs = llm.generate(["a much longer prompt", "hi", [1, 2], np.array([104, 105])], LONG)
    assert [out.prompt for out in outputs] == ["a much longer prompt", "hi", None, None]
    assert outputs[1].text == outputs[3].text == SCRIPT["hi"]
    assert [out.request_id for out in outputs] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("wrap", [list, np.array, lambda rows: [np.array(row) for row in rows]])
def test_arrays_of_ids_are_prompts(llm, wrap):
    outputs = llm.generate(wrap([[104, 105], [104, 106]]), LONG)
    assert [out.prompt_token_ids for out in outputs] == [[104, 105], [104, 106]]
    assert llm.generate(wrap([[7]]), LONG)[0].prompt_token_ids == [7]
    assert [*llm.stream(np.array([104, 105]), LONG)][-1].output.text == SCRIPT["hi"]


@pytest.mark.parametrize("prompts", [b"hi", bytearray(b"hi"), {"hi": 1}])
def test_bytes_and_mappings_are_not_prompts(llm, prompts):
    with pytest.raises(UserError, match="must be a string, a list of token ids"):
        llm.generate(prompts, LONG)


@pytest.mark.parametrize("params", [{"temperature": 0}, 3, "greedy", [None]])
def test_other_types_than_sampling_params_are_refused(llm, params):
    with pytest.raises(UserError, match="must be a SamplingParams"):
        llm.generate("hi", params)


def test_an_empty_list_of_prompts(llm):
    assert llm.generate([], LONG) == []


def test_params_for_each_prompt_and_vllms_default(llm):
    outputs = llm.generate(["hi", "hi"], [LONG, LONG.replace(max_tokens=2)])
    assert [out.text for out in outputs] == [SCRIPT["hi"], "na"]
    assert len(llm.generate("hi")[0].token_ids) == 16
    with pytest.raises(UserError, match="2 prompts came with 1 sampling_params"):
        llm.generate(["hi", "hi"], [LONG])


def test_chat_takes_one_conversation_or_several(llm):
    messages = [{"role": "user", "content": "hi"}]
    (out,) = llm.chat(messages, LONG)
    assert out.text == "hello" and out.prompt == "user: hi\nassistant:"
    assert [out.text for out in llm.chat([messages, messages], LONG)] == ["hello", "hello"]


def test_an_unset_max_tokens_lets_an_answer_end_by_itself():
    answer = "an answer that is longer than sixteen tokens"
    llm = LLM.from_runner(ScriptedRunner({"user: hi\nassistant:": answer}), ByteTokenizer())
    messages = [{"role": "user", "content": "hi"}]
    unset = SamplingParams(temperature=0.0)
    assert [out.text for out in llm.chat(messages, unset)] == [answer]
    assert "".join(piece.text for piece in llm.stream(messages, unset.replace(seed=1))) == answer
    assert len(llm.chat(messages, unset.replace(max_tokens=16))[0].token_ids) == 16, "it is set"


# -- outputs ----------------------------------------------------------------------------------------------------------


def test_n_samples_have_consecutive_seeds_and_are_repeatable(llm):
    params = SamplingParams(n=3, seed=5, max_tokens=8)
    (out,) = llm.generate("other", params)
    assert [sample.index for sample in out.outputs] == [0, 1, 2]
    assert [sample.seed for sample in out.outputs] == [5, 6, 7]
    assert len({tuple(sample.token_ids) for sample in out.outputs}) == 3
    for sample in out.outputs:
        (again,) = llm.generate("other", params.replace(n=1, seed=sample.seed))
        assert again.token_ids == sample.token_ids


def test_a_random_seed_is_reported_and_repeatable(llm):
    params = SamplingParams(max_tokens=8)
    first, second = (llm.generate("other", params)[0] for _ in range(2))
    assert first.token_ids != second.token_ids
    (again,) = llm.generate("other", params.replace(seed=first.outputs[0].seed))
    assert again.token_ids == first.token_ids


def test_the_largest_seed_wraps_round(llm):
    (out,) = llm.generate("other", SamplingParams(n=2, seed=2**64 - 1, max_tokens=1))
    assert [sample.seed for sample in out.outputs] == [2**64 - 1, 0]


def test_logprobs_in_vllms_shape(llm):
    (out,) = llm.generate("other", SamplingParams(max_tokens=4, seed=0, logprobs=2))
    sample = out.outputs[0]
    assert len(sample.logprobs) == len(sample.token_ids) == 4
    for token, entries in zip(sample.token_ids, sample.logprobs, strict=True):
        assert next(iter(entries)) == token and len(entries) in (2, 3)
        assert entries[token].decoded_token == llm.tokenizer.decode([token])
        assert sorted(entry.rank for entry in entries.values())[:2] == [1, 2]
    chosen = [entries[token].logprob for token, entries in zip(sample.token_ids, sample.logprobs, strict=True)]
    assert sample.cumulative_logprob == pytest.approx(sum(chosen))
    assert llm.generate("other", SamplingParams(max_tokens=1))[0].outputs[0].cumulative_logprob is None


def test_stop_strings_and_finish_reasons(llm):
    sample = llm.generate("hi", LONG.replace(stop=["END", "never"]))[0].outputs[0]
    assert (sample.text, sample.finish_reason, sample.stop_reason) == ("naïve 🦙. The ", "stop", "END")
    assert bytes(sample.token_ids).decode() == "naïve 🦙. The END"
    sample = llm.generate("hi", LONG)[0].outputs[0]
    assert (sample.finish_reason, sample.stop_reason, sample.token_ids[-1]) == ("stop", None, END)
    sample = llm.generate("hi", LONG.replace(ignore_eos=True))[0].outputs[0]
    assert (sample.finish_reason, len(sample.token_ids)) == ("length", 60)


def test_min_tokens_keeps_the_text_from_ending(llm):
    whole = llm.generate("hi", LONG)[0].outputs[0].token_ids
    for params in (LONG, LONG.replace(stop_token_ids=[ord("i")])):
        first = next(i for i, token in enumerate(whole) if token in (END, *(params.stop_token_ids or ())))
        for new in (first, first + 1, first + 9):
            sample = llm.generate("hi", params.replace(min_tokens=new))[0].outputs[0]
            assert sample.token_ids[:first] == whole[:first]
            assert (len(sample.token_ids) == first + 1) == (new == first)  # it may be the one after the first `new`
            assert not {END, *(params.stop_token_ids or ())} & set(sample.token_ids[:new])
    sample = llm.generate("hi", LONG.replace(min_tokens=60))[0].outputs[0]
    assert (len(sample.token_ids), sample.finish_reason) == (60, "length")
    assert llm.generate("hi", LONG.replace(min_tokens=60, ignore_eos=True))[0].token_ids[: len(whole)] == whole


def test_a_stop_string_that_is_complete_before_min_tokens_does_not_count(llm):
    stop = LONG.replace(stop=["END", "is near"])
    for new, text in ((17, "naïve 🦙. The "), (18, "naïve 🦙. The END "), (26, SCRIPT["hi"])):
        assert len("naïve 🦙. The END".encode()) == 20
        assert llm.generate("hi", stop.replace(min_tokens=new + 2))[0].text == text


def test_a_full_context_finishes_with_length(llm):
    (out,) = llm.generate([[1] * 120], LONG.replace(max_tokens=None))
    assert out.outputs[0].finish_reason == "length" and len(out.token_ids) == 8
    (out,) = llm.generate([[1] * 120], LONG)
    assert len(out.token_ids) == 8


def test_progress_goes_to_stderr_only(llm, capfd):
    llm.generate(["hi", "hi"], LONG, progress=True)
    captured = capfd.readouterr()
    assert captured.out == "" and "2/2" in captured.err
    llm.generate(["hi", "hi"], LONG)
    assert capfd.readouterr().err == ""


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [None, ["END"], ["near", "zzz"], "🦙"])
def test_the_pieces_of_a_stream_join_to_the_text_of_generate(llm, stop):
    params = LONG.replace(stop=stop)
    (expected,) = llm.generate("hi", params)
    pieces = list(llm.stream("hi", params))
    assert "".join(str(piece) for piece in pieces) == expected.text
    assert [piece.token_id for piece in pieces] == expected.token_ids
    assert "\ufffd" not in "".join(piece.text for piece in pieces)
    assert [piece.output for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].output.outputs[0].finish_reason == "stop"
    assert pieces[-1].output.token_ids == expected.token_ids


def test_a_stream_of_a_conversation(llm):
    assert "".join(piece.text for piece in llm.stream([{"role": "user", "content": "hi"}], LONG)) == "hello"


def test_stream_checks_its_arguments_at_once_and_can_be_closed(llm):
    with pytest.raises(UserError, match="empty"):
        llm.stream("")
    stream = llm.stream("hi", LONG)
    assert next(stream).text == "n"
    stream.close()
    assert llm.generate("hi", LONG)[0].text == SCRIPT["hi"]


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "params", "says"),
    [
        ("", None, "Prompt 0 is empty"),
        (["hi", []], None, "Prompt 1 is empty"),
        ([[1, 260]], None, r"Prompt 0: 260 is not a token id of this model; ids go from 0 to 259"),
        ([[1, -1]], None, "-1 is not a token id"),
        ([[1, True]], None, "True is not a token id"),
        ([[1.5]], None, "1.5 is not a token id"),
        ([None], None, "Prompt 0 is None"),
        (7, None, "prompts=7"),
        ("hi", {"stop_token_ids": [999]}, "stop_token_ids: 999"),
        ("hi", {"logit_bias": {999: 1.0}}, "logit_bias: 999"),
        ([[1] * 128], None, "128 tokens.*max_position_embeddings, is 128"),
    ],
)
def test_impossible_requests_are_refused_before_anything_runs(llm, prompts, params, says):
    with pytest.raises(UserError, match=says):
        llm.generate(prompts, SamplingParams(**(params or {})))
    assert llm.engine.runner.steps == []


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda llm: llm.chat("hi"), "must be a list of messages.*\n.*Use generate for plain text"),
        (lambda llm: llm.chat(None), "must be a list of messages"),
        (lambda llm: llm.generate([{"role": "user", "content": "hi"}]), "Use chat for the messages of a conversation"),
        (lambda llm: llm.stream(7), "Prompt 0 is 7"),
        (lambda llm: llm.stream("hi", {"n": 1}), "must be a SamplingParams: a stream takes one prompt"),
    ],
)
def test_the_error_names_the_right_method(llm, call, says):
    with pytest.raises(UserError, match=says):
        call(llm)


def test_a_request_that_never_fits_in_memory_is_refused():
    runner = ScriptedRunner(SCRIPT, kv_bytes_per_token=60)
    llm = LLM.from_runner(runner, ByteTokenizer(), kv_cache_memory="1kB")
    with pytest.raises(UserError, match="kv_cache_memory holds 16"):
        llm.generate("hi", SamplingParams(max_tokens=16))
    assert len(llm.generate("hi", SamplingParams(max_tokens=15, ignore_eos=True))[0].token_ids) == 15


def test_a_tokenizer_of_another_model_is_noticed():
    llm = LLM.from_runner(ScriptedRunner(vocab_size=100), ByteTokenizer())
    with pytest.raises(UserError, match="Prompt 0: 104 is not a token id"):
        llm.generate("hi")


def test_without_a_tokenizer_ids_work_and_text_is_refused():
    llm = LLM.from_runner(ScriptedRunner(SCRIPT, eos_token_id=END), None)
    (out,) = llm.generate([104, 105], LONG.replace(logprobs=0))
    assert bytes(out.token_ids[:-1]).decode() == SCRIPT["hi"] and out.text == ""
    assert out.outputs[0].finish_reason == "stop" and out.outputs[0].logprobs[0][ord("n")].decoded_token == ""
    for call in (
        lambda: llm.generate("hi"),
        lambda: llm.chat([{"role": "user", "content": "hi"}]),
        lambda: llm.generate([104], SamplingParams(stop="x")),
    ):
        with pytest.raises(UserError, match="came without one"):
            call()


@pytest.mark.parametrize("name", ("device", "dtype", "quantization", "kv_cache_dtype", "num_threads"))
def test_settings_for_loading_do_not_apply_to_a_loaded_model(name):
    with pytest.raises(UserError, match=f"{name}='cpu' does not apply"):
        LLM.from_runner(ScriptedRunner(SCRIPT), ByteTokenizer(), **{name: "cpu"})


def test_settings_are_refused_before_the_model_is_read():
    with pytest.raises(UserError, match="quantization='int3': 'int3' is not known"):
        LLM("no-such-model", quantization="int3")
    with pytest.raises(UserError, match="dtype"):
        LLM("no-such-model", dtype="float8")


def test_a_closed_llm_says_so():
    with LLM.from_runner(ScriptedRunner(SCRIPT), ByteTokenizer()) as llm:
        assert llm.generate("a")
    llm.close()  # a second time does nothing
    uses = (lambda: llm.generate("a"), lambda: llm.chat([{"role": "user", "content": "a"}]), lambda: llm.stream("a"))
    for use in (*uses, llm.__enter__):
        with pytest.raises(UserError, match="This LLM is closed"):
            use()
    assert "closed" in repr(llm)


def test_its_repr_says_what_it_is():
    text = repr(LLM.from_runner(ScriptedRunner(SCRIPT), ByteTokenizer()))
    assert "parameters" in text and "ScriptedRunner" in text and "ByteTokenizer" in text and " at 0x" not in text[:60]
