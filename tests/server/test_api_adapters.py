"""Adapters over HTTP: chosen by `model`, in one batch, and listed beside the model that they are of."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.adapters import save_kinds
from helpers.api import NAME, bpe, config, post, random_folder, served
from nano_llama import LLM, SamplingParams
from nano_llama.core.errors import UserError
from nano_llama.core.init import init_params
from nano_llama.server.adapters import Adapter, served_names

ASKED = [NAME, "lora", "dora", None, "rslora", "lora", "dora", NAME]  # models
PROMPT = "the quick brown fox jumps over the lazy dog and goes on"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    shape = config(bpe())
    return random_folder(folder / NAME), save_kinds(folder, shape, init_params(shape, seed=3))


@pytest.fixture(scope="module")
def texts(saved):
    """model -> what it says, alone."""
    with LLM(saved[0], adapter=saved[1], device="cpu", num_threads=1) as llm:
        params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
        found = {name: llm.generate(PROMPT, params, adapter=name)[0].text for name in (*saved[1], None)}
    assert len(set(found.values())) == 4, "each adapter says something else"
    return {**found, NAME: found[None]}


@pytest.fixture(scope="module")
def client(saved):
    llm = LLM(saved[0], adapter=saved[1], device="cpu", num_threads=2, max_num_seqs=8)
    with served(llm, adapters=[Adapter(name, folder) for name, folder in saved[1].items()]) as client:
        yield client


def ask(client, model):
    chosen = {} if model is None else {"model": model}
    greedy = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
    return post(client, "/v1/completions", prompt=PROMPT, **greedy, **chosen)


def test_requests_choose_by_model_and_run_together(client, texts):
    with ThreadPoolExecutor(len(ASKED)) as pool:
        answers = list(pool.map(lambda model: ask(client, model), ASKED))
    for model, answer in zip(ASKED, answers, strict=True):
        assert answer["choices"][0]["text"] == texts[model], model
        assert answer["model"] == (model or NAME)


def test_chats_choose_too(client):
    def answer(model):
        messages = [{"role": "user", "content": PROMPT}]
        fields = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
        return post(client, "/v1/chat/completions", model=model, messages=messages, **fields)

    said = {model: answer(model)["choices"][0]["message"]["content"] for model in (NAME, "lora", "dora")}
    assert len(set(said.values())) == 3


def test_cached_prompts_are_not_shared_between_adapters(client):
    prompt = [5 + i for i in range(40)]
    cached = [
        post(client, "/v1/completions", prompt=prompt, max_tokens=1, model=model)["usage"]["prompt_tokens_details"]
        for model in ("lora", "dora", NAME, "lora")
    ]
    assert [details["cached_tokens"] for details in cached] == [0, 0, 0, 32]


def test_they_are_listed_with_their_parent(client):
    listed = {model["id"]: model["parent"] for model in client.get("/v1/models").json()["data"]}
    assert listed == {NAME: None, "lora": NAME, "rslora": NAME, "dora": NAME}
    assert client.get("/v1/models/dora").json()["parent"] == NAME


def test_one_that_is_not_served(client):
    answer = client.post("/v1/completions", json={"prompt": "a", "model": "poet"})
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"
    assert "lora" in answer.json()["error"]["message"]


def test_an_adapter_is_a_name_and_a_folder():
    assert Adapter.parse("poet=runs/poet=2") == Adapter("poet", Path("runs/poet=2"))
    for text in ("poet", "=runs", "poet="):
        with pytest.raises(UserError, match="NAME=DIR"):
            Adapter.parse(text)


@pytest.mark.parametrize("names", [["tiny"], ["a", "a"]])
def test_a_name_stands_for_one_model(names):
    assert served_names(["tiny"], [Adapter("a", Path("x")), Adapter("b", Path("x"))]) == ["tiny", "a", "b"]
    with pytest.raises(UserError, match=f"the name '{names[0]}' is taken"):
        served_names(["tiny"], [Adapter(name, Path("x")) for name in names])
