"""/v1/models (models.py), and names of models."""

import pytest

from helpers.api import bpe, post, random_llm, served


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
