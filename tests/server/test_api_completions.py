"""/v1/completions (completions.py, completion_answer.py, logprobs.py): prompts in four forms, echo, logprobs, usage."""

import numpy as np
import pytest

from helpers.api import events, post, scripted_llm, served
from nano_llama import SamplingParams

PATH = "/v1/completions"


def test_a_prompt_may_be_a_text_ids_or_several_of_either(client, llm):
    texts = ["the quick", "lazy dog"]
    ids = [llm.tokenizer.encode(text) for text in texts]
    asked = {"temperature": 0, "max_tokens": 5}
    one = [post(client, PATH, prompt=prompt, **asked)["choices"][0]["text"] for prompt in texts]
    assert one == [out.text for out in llm.generate(texts, SamplingParams(temperature=0, max_tokens=5))]
    for prompts in (texts, ids):
        choices = post(client, PATH, prompt=prompts, **asked)["choices"]
        assert [(choice["index"], choice["text"]) for choice in choices] == list(enumerate(one))
    assert post(client, PATH, prompt=ids[1], **asked)["choices"][0]["text"] == one[1]


def test_samples_of_several_prompts_are_numbered_prompt_by_prompt(client, llm):
    answer = post(client, PATH, prompt=["the", "dog"], n=3, seed=7, max_tokens=4)
    outs = llm.generate(["the", "dog"], SamplingParams(n=3, seed=7, max_tokens=4))
    assert [choice["text"] for choice in answer["choices"]] == [s.text for out in outs for s in out.outputs]


def test_defaults_are_openai_s(client):
    usage = post(client, PATH, prompt="the", ignore_eos=True)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len("the") - 1, 16)


def test_echo_with_logprobs_scores_the_prompt(client, llm):
    """Against log-softmax over the model's own logits."""
    text = "the quick naïve 漢字"
    ids = llm.tokenizer.encode(text)
    answer = post(client, PATH, prompt=text, echo=True, logprobs=2, max_tokens=3, temperature=0)
    lists, choice = answer["choices"][0]["logprobs"], answer["choices"][0]
    assert choice["text"].startswith(text)
    assert lists["token_logprobs"][0] is None and lists["top_logprobs"][0] is None
    rows = reference_logprobs(llm, ids)
    assert lists["token_logprobs"][1 : len(ids)] == pytest.approx(rows[np.arange(len(ids) - 1), ids[1:]], abs=1e-5)
    for top, row, token in zip(lists["top_logprobs"][1 : len(ids)], rows, ids[1:], strict=False):
        likeliest = sorted({float(row[token]), *np.sort(row)[-2:].tolist()})
        assert sorted(top.values()) == pytest.approx(likeliest, abs=1e-5)
    assert len({len(values) for values in lists.values()}) == 1
    assert len(lists["tokens"]) == len(ids) + 3


def reference_logprobs(llm, ids) -> np.ndarray:
    logits = llm.engine.runner.model.forward(np.array([ids]))[0].astype(np.float64)
    return (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


@pytest.mark.parametrize("stream", [False, True])
def test_max_tokens_0_scores_the_prompt_and_writes_nothing(client, stream):
    body = {"prompt": ["the quick", "lazy"], "echo": True, "logprobs": 1, "max_tokens": 0}
    if stream:
        *chunks, last = events(client, PATH, **body, stream_options={"include_usage": True})
        choices, usage = [chunk["choices"][0] for chunk in chunks], last["usage"]
        choices.sort(key=lambda choice: choice["index"])
    else:
        answer = post(client, PATH, **body)
        choices, usage = answer["choices"], answer["usage"]
    assert [choice["text"] for choice in choices] == body["prompt"]
    assert all(choice["finish_reason"] == "length" for choice in choices)
    for choice in choices:
        lists = choice["logprobs"]
        assert lists["token_logprobs"][0] is None and None not in lists["token_logprobs"][1:]
        assert "".join(lists["tokens"]) == choice["text"]
        starts = np.cumsum([0, *map(len, lists["tokens"])])[:-1].tolist()
        assert lists["text_offset"] == starts
    assert usage["completion_tokens"] == 0 and usage["total_tokens"] == usage["prompt_tokens"]
    longer = post(client, PATH, **{**body, "max_tokens": 1})["choices"]
    for choice, other in zip(choices, longer, strict=True):
        assert choice["logprobs"]["token_logprobs"] == other["logprobs"]["token_logprobs"][:-1]


def test_offsets_go_on_behind_an_echoed_prompt():
    with served(scripted_llm({"Say: ": "naïve 漢字!"})) as client:
        choice = post(client, PATH, prompt="Say: ", echo=True, logprobs=0, max_tokens=40)["choices"][0]
        assert choice["text"] == "Say: naïve 漢字!"
        lists = choice["logprobs"]
        for name, offset in zip(lists["tokens"], lists["text_offset"], strict=True):
            if name == "<|endoftext|>":
                assert offset == len(choice["text"])
            elif name.startswith("bytes:"):
                assert ord(choice["text"][offset]) > 127
            else:
                assert choice["text"][offset] == name
        assert "".join(lists["tokens"][: len("Say: na")]) == "Say: na"
        assert "bytes:\\xc3" in lists["tokens"]


def test_logprobs_never_leak_behind_a_stop_string():
    with served(scripted_llm({"Go ": "one STOP two"})) as client:
        body = {"prompt": "Go ", "stop": "STOP", "logprobs": 1, "max_tokens": 40}
        (choice,) = post(client, PATH, **body)["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("one ", "stop")
        assert "".join(choice["logprobs"]["tokens"]) == "one "
        for chunk in events(client, PATH, **body):
            assert "S" not in chunk["choices"][0]["text"]
            assert "S" not in "".join(chunk["choices"][0]["logprobs"]["tokens"])


def test_special_tokens_end_a_text_and_have_none():
    with served(scripted_llm({"Go ": "on"})) as client:
        (choice,) = post(client, PATH, prompt="Go ", logprobs=0, max_tokens=9)["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("on", "stop")
        assert choice["logprobs"]["tokens"] == ["o", "n", "<|endoftext|>"]


def test_two_tokens_of_one_text_are_told_apart(client):
    """A JSON object has each key once."""
    from nano_llama.server.logprobs import TextLogprobs
    from nano_llama.vol3_engine.outputs import Logprob

    class SameText:
        def token_bytes(self, token):
            return b"x"

        def decoder(self, **options):
            class Decoder:
                def push(self, token):
                    return "x"

            return Decoder()

    lists = TextLogprobs(SameText()).extend([{7: Logprob(-2.0, 2, "x"), 9: Logprob(-1.0, 1, "x")}])
    assert lists["top_logprobs"] == [{"x": -2.0, "token_id:9": -1.0}]
    impossible = TextLogprobs(SameText()).extend([{7: Logprob(-np.inf, 2, "x")}])
    assert impossible["token_logprobs"] == [-9999.0]


def test_prompt_logprobs_in_vllm_s_shape(client, llm):
    ids = llm.tokenizer.encode("the quick")
    (choice,) = post(client, PATH, prompt=ids, prompt_logprobs=1, max_tokens=1)["choices"]
    rows = reference_logprobs(llm, ids)
    assert choice["prompt_logprobs"][0] is None
    for entry, row, token in zip(choice["prompt_logprobs"][1:], rows, ids[1:], strict=False):
        assert entry[str(token)]["logprob"] == pytest.approx(row[token], abs=1e-5)
        assert entry[str(token)]["rank"] == 1 + int((row > row[token]).sum())
        assert min(value["rank"] for value in entry.values()) == 1


def test_a_prompt_is_cut_only_where_that_is_asked_for(client, llm):
    ids = llm.tokenizer.encode("the quick brown fox jumps")
    cut = post(client, PATH, prompt="the quick brown fox jumps", truncate_prompt_tokens=3, temperature=0, echo=True)
    kept = post(client, PATH, prompt=ids[-3:], temperature=0, echo=True)
    assert cut["choices"] == kept["choices"]
    assert cut["usage"]["prompt_tokens"] == 3
    assert cut["usage"]["prompt_tokens_details"]["truncated_tokens"] == len(ids) - 3
    assert "truncated_tokens" not in kept["usage"]["prompt_tokens_details"]


def test_cached_tokens_are_counted(client):
    prompt = [int(i) for i in np.random.default_rng(5).integers(1, 250, 50)]
    first, second = (post(client, PATH, prompt=prompt, max_tokens=1)["usage"] for _ in range(2))
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["prompt_tokens_details"]["cached_tokens"] == 48  # whole blocks of 16


def test_a_negative_seed_is_a_seed(client, llm):
    (choice,) = post(client, PATH, prompt="the", seed=-3, max_tokens=6)["choices"]
    assert choice["text"] == llm.generate("the", SamplingParams(seed=2**64 - 3, max_tokens=6))[0].text


def test_bos_only_where_the_tokenizer_says_so_and_the_body_does_not_forbid_it():
    from helpers.api import bpe, config
    from nano_llama import LLM
    from nano_llama.core.init import init_params
    from nano_llama.tokenizer import Tokenizer
    from nano_llama.tokenizer.roles import Roles
    from nano_llama.vol1_numpy import Llama

    plain = bpe()
    tokenizer = Tokenizer(plain.backend, Roles(bos=0, eos=0, prefix=(0,)))
    shape = config(tokenizer)
    with served(LLM.from_model(Llama(shape, init_params(shape, seed=3)), tokenizer)) as client:
        body = {"prompt": "the", "max_tokens": 1, "return_token_ids": True}
        with_bos, without = (
            post(client, PATH, **body, add_special_tokens=flag)["choices"][0]["prompt_token_ids"]
            for flag in (None, False)
        )
        assert with_bos == [0, *without] and without == plain.encode("the")


def test_many_of_one_size(client):
    """More choices than run at once: all are answered."""
    answer = post(client, PATH, prompt=["the"] * 50, max_tokens=2, temperature=0)
    assert len({choice["text"] for choice in answer["choices"]}) == 1 and len(answer["choices"]) == 50
