"""/v1/models (models.py), names of models, and the place for adapters (adapters.py)."""

from pathlib import Path

import pytest

from helpers.api import bpe, post, random_llm, served
from nano_llama.core.errors import UserError
from nano_llama.server.adapters import Adapter, served_names


def test_models():
    with served(random_llm()) as client:
        listed = client.get("/v1/models").json()
        assert listed["object"] == "list"
        (model,) = listed["data"]
        assert client.get("/v1/models/tiny").json() == model
        assert (model["id"], model["object"], model["max_model_len"]) == ("tiny", "model", 256)
        assert model["meta"]["n_vocab"] == bpe().vocab_size and model["meta"]["chat"] is True


@pytest.mark.parametrize("name", ["gpt-4", "tiny/x", "..", "%00", "x" * 500])
def test_a_model_that_is_not_served(name):
    with served(random_llm()) as client:
        answers = [client.get(f"/v1/models/{name}")]
        if "%" not in name:
            answers.append(client.post("/v1/completions", json={"prompt": "a", "model": name}))
        for answer in answers:
            assert answer.status_code == 404, answer.text
            assert answer.json()["error"]["code"] in ("model_not_found", "unknown_url")
            assert len(answer.text) < 500


def test_the_model_may_be_left_out():
    with served(random_llm()) as client:
        assert post(client, "/v1/completions", prompt="a")["model"] == "tiny"
        assert post(client, "/v1/completions", prompt="a", model="tiny")["model"] == "tiny"


def test_an_adapter_is_a_name_and_a_folder():
    assert Adapter.parse("poet=runs/poet=2") == Adapter("poet", Path("runs/poet=2"))
    for text in ("poet", "=runs", "poet="):
        with pytest.raises(UserError, match="NAME=DIR"):
            Adapter.parse(text)


def test_adapters_are_refused_while_the_engine_reads_none():
    assert served_names(["tiny"], []) == ["tiny"]
    with pytest.raises(UserError, match="poet=runs/poet"):
        served_names(["tiny"], [Adapter("poet", Path("runs/poet"))])
