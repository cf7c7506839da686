"""/inspect/next (nano_llama/server/inspection/next_token.py): its draws are the tokens that the server serves."""

import math

import numpy as np
import pytest

from helpers.api import bpe, config, post
from nano_llama.core.init import init_params
from nano_llama.core.sampling import SamplingParams
from nano_llama.core.sampling.philox import uniform
from nano_llama.core.sampling.sampler import candidates, draw
from nano_llama.server.inspection.next_token import largest
from nano_llama.vol1_numpy import Llama

PATH = "/inspect/next"
PROMPT = bpe().encode("the quick brown")
SHAPED = {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1,
          "presence_penalty": 0.3, "frequency_penalty": 0.2, "logit_bias": {"70": 2.5}, "min_tokens": 9}  # fmt: skip


def logits() -> np.ndarray:
    """By Volume 1, without an engine."""
    shape = config(bpe())
    return Llama(shape, init_params(shape, seed=3)).forward(np.array([PROMPT]))[0, -1]


def test_a_thousand_seeds_draw_the_tokens_that_are_served(client):
    """The page's needle: u by seed and place, over the bar of what the cuts leave, in the order of ids."""
    asked = {"temperature": 1.1, "top_k": 50, "top_p": 0.95}
    answer = post(client, PATH, prompt=PROMPT, **asked)
    top = answer["top"]
    bar = sorted((start, token) for start, token in zip(top["from"], top["ids"], strict=True) if start is not None)
    starts, tokens = np.array([start for start, _ in bar]), [token for _, token in bar]
    assert len(tokens) == answer["cuts"][-1]["left"] and tokens == sorted(tokens), "all that is left is listed"
    replayed = [
        tokens[np.searchsorted(starts, uniform(seed, answer["position"]), side="right") - 1] for seed in range(1000)
    ]
    served_tokens = []
    for first in range(0, 1000, 16):  # sample i of n has seed + i
        count = min(16, 1000 - first)
        body = {"prompt": PROMPT, "max_tokens": 1, "n": count, "seed": first, "return_token_ids": True, **asked}
        choices = post(client, "/v1/completions", **body)["choices"]
        served_tokens += [choice["token_ids"][0] for choice in choices]
    assert replayed == served_tokens
    assert len(set(replayed)) > 10, "many tokens are drawn"


@pytest.mark.parametrize("asked", [{}, SHAPED, {"temperature": 0}, {"temperature": 3.0}], ids=str)
def test_every_place_of_an_answer_is_replayed(client, asked):
    """Penalties, min_tokens and places too; rows of prefill and of decoding are the same."""
    body = {"prompt": PROMPT, "max_tokens": 12, "seed": 11, "return_token_ids": True, **asked}
    ids = post(client, "/v1/completions", **body)["choices"][0]["token_ids"]
    for place, token in enumerate(ids):
        answer = post(client, PATH, prompt=PROMPT, output=ids[:place], seed=11, **asked)
        drawn = answer["draw"]
        assert answer["position"] == len(PROMPT) + place and drawn["token"] == token
        if asked.get("temperature") == 0:
            assert (drawn["u"], drawn["from"], drawn["to"]) == (None, 0.0, 1.0)
        else:
            assert drawn["u"] == uniform(11, answer["position"]) and drawn["from"] <= drawn["u"] < drawn["to"]


def test_the_distribution_is_the_model_s(client):
    answer, row = post(client, PATH, prompt=PROMPT), logits().astype(float)
    top = answer["top"]
    assert len(top["ids"]) == 256 and top["logits"] == sorted(top["logits"], reverse=True)
    np.testing.assert_allclose(top["logits"], row[top["ids"]], atol=1e-4)
    assert answer["logsumexp"] == pytest.approx(math.log(np.exp(row).sum()), abs=1e-4)
    p = np.exp(row) / np.exp(row).sum()
    assert answer["entropy"] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-4)
    assert answer["draw"] is None and answer["cuts"] == [] and answer["adjusted_logsumexp"] == answer["logsumexp"]
    np.testing.assert_allclose(top["p"], np.exp(np.array(top["logits"]) - answer["logsumexp"]), rtol=1e-9)
    assert top["texts"][0] == bpe().decode([top["ids"][0]]) or top["texts"][0] is None


def test_the_cuts_in_their_order(client):
    answer = post(client, PATH, prompt=PROMPT, seed=3, **{**SHAPED, "min_tokens": 2})
    assert [cut["name"] for cut in answer["cuts"]] == ["penalties", "temperature", "min_p", "top_k", "top_p"]
    left = [cut["left"] for cut in answer["cuts"]]
    assert left == sorted(left, reverse=True)
    top = answer["top"]
    for token, name, p, start in zip(top["ids"], top["cut_by"], top["p"], top["from"], strict=True):
        assert (name is None) == (p > 0) == (start is not None), token
    assert {"top_k", "top_p"} & set(top["cut_by"])
    if bpe().eos_id in top["ids"]:
        place = top["ids"].index(bpe().eos_id)
        assert (top["cut_by"][place], top["adjusted"][place]) == ("min_tokens", None)
    row = np.full(answer["vocab_size"], -np.inf)
    row[top["ids"]] = [-np.inf if x is None else x for x in top["adjusted"]]
    params = SamplingParams(temperature=1.3, top_k=40, top_p=0.9, min_p=0.01)
    assert draw(*candidates(row, params), answer["draw"]["u"]) == answer["draw"]["token"], "the cut ones change nothing"


def test_the_largest_are_those_of_a_stable_sort():
    values = np.random.default_rng(0).integers(0, 9, 200).astype(np.float32)  # many are equal
    for count in (1, 7, 64, 199, 200, 300):
        assert largest(values, count).tolist() == np.argsort(-values, kind="stable")[:count].tolist()


def test_under_a_grammar(client):
    pytest.importorskip("llguidance")
    constraint = {"regex": "(yes|no) [0-9]+"}
    body = {"prompt": PROMPT, "seed": 5, "structured_outputs": constraint}
    ids = post(client, "/v1/completions", **body, max_tokens=6, return_token_ids=True)["choices"][0]["token_ids"]
    for place, token in enumerate(ids):
        answer = post(client, PATH, output=ids[:place], **body)
        first = answer["cuts"][0]
        assert first["name"] == "constraint" and 0 < first["left"] < 60 and 0 < first["mass"] < 1
        assert answer["draw"]["token"] == token
        top = answer["top"]
        left = [number for number, name in zip(top["ids"], top["cut_by"], strict=True) if name is None]
        assert len(left) == min(first["left"], 64) and token in left and "constraint" in top["cut_by"]


def test_a_text_is_read_as_completions_read_it(client):
    by_text, by_ids = (post(client, PATH, prompt=prompt) for prompt in ("the quick brown", PROMPT))
    assert by_text == by_ids and by_text["prompt"] == PROMPT


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1], "stream": True}, "stream"),
        ({"prompt": [1], "n": 2}, "n"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1] * 300}, "prompt"),
        ({"prompt": [1], "output": [2] * 255}, "prompt"),
        ({"prompt": [1], "output": [-1]}, "output[0]"),
        ({"prompt": [1], "model": "other"}, "model"),
        ({"prompt": [1], "logit_bias": {"5000": 1.0}}, None),
        ({"prompt": [1], "output": [5000]}, None),
    ],
)
def test_what_is_refused(client, body, param):
    status = 404 if param == "model" else 400
    assert post(client, PATH, status, **body)["error"]["param"] == param


def test_it_uses_cached_blocks_and_leaves_none_held(client):
    long = (PROMPT * 30)[:200]
    first = client.get("/metrics").text
    post(client, PATH, prompt=long)
    post(client, PATH, prompt=long)
    assert hits(client.get("/metrics").text) >= hits(first) + 192, "the second time all full blocks are there"


def hits(metrics: str) -> float:
    return next(
        float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith("nano_llama:prefix_cache_hits_total")
    )
