"""/inspect/volumes (nano_llama/server/inspection/volumes.py): one position by the engine and by Volumes 1 and 2."""

import numpy as np
import pytest

from helpers.api import bpe, post, served
from nano_llama import LLM, SamplingParams
from nano_llama.server.replayer import Replayer
from nano_llama.vol1_numpy import Llama
from nano_llama.vol2_torch.layerwise import last_logits

PATH = "/inspect/volumes"
IDS = bpe().encode("the quick brown fox jumps over the lazy dog")


@pytest.fixture(scope="module")
def exact(folder):
    """The engine computes in float32, and Volume 2 is there."""
    with served(LLM(folder, dtype="float32"), replayer=Replayer(folder, last_logits)) as client:
        yield client


@pytest.fixture(scope="module")
def rounded(folder):
    """The engine keeps keys and values in 8 bits; Volume 2 is not there."""
    with served(LLM(folder, kv_cache_dtype="int8"), replayer=Replayer(folder)) as client:
        yield client


def softmax(x):
    y = np.exp(x - x.max())
    return y / y.sum()


def test_three_volumes_agree(exact, folder):
    answer = post(exact, PATH, tokens=IDS)
    logits = Llama.from_pretrained(folder).forward(np.array([IDS]))[0, -1]
    order = np.argsort(-logits, kind="stable")[:16].tolist()
    assert answer["ids"] == order and answer["position"] == len(IDS) and answer["vocab_size"] == len(logits)
    assert answer["reference"] == "volume1" and list(answer["volumes"]) == ["engine", "volume1", "volume2"]
    for name, volume in answer["volumes"].items():
        np.testing.assert_allclose(volume["logits"], logits[order], rtol=1e-4, atol=1e-5, err_msg=name)
        assert volume["choice"] == order[0] and volume["largest_difference"] < 1e-4 and abs(volume["kl"]) < 1e-8
        p = np.exp(np.array(volume["logits"]) - volume["logsumexp"])
        np.testing.assert_allclose(p, softmax(logits.astype(float))[order], rtol=1e-4)
    assert answer["volumes"]["volume1"]["largest_difference"] == answer["volumes"]["volume1"]["kl"] == 0
    assert answer["numbers"]["engine"] == {"runner": "CpuRunner", "weights": ["F32"], "kv_cache": "float32"}
    assert set(answer["seconds"]) == {"volume1", "volume2"}


def test_the_engines_row_is_the_one_that_is_served(rounded, folder):
    answer, top = post(rounded, PATH, tokens=IDS, token=257), post(rounded, "/inspect/next", prompt=IDS)["top"]
    by_id = dict(zip(top["ids"], top["logits"], strict=True))
    assert list(answer["volumes"]) == ["engine", "volume1"] and answer["ids"][-1] == 257
    engine = answer["volumes"]["engine"]
    assert engine["logits"] == [by_id[number] for number in answer["ids"]]
    assert answer["numbers"]["engine"]["kv_cache"] == "int8"


def test_how_far_a_rounded_engine_is(rounded, folder):
    answer = post(rounded, PATH, tokens=IDS)["volumes"]["engine"]
    logits = Llama.from_pretrained(folder).forward(np.array([IDS]))[0, -1]
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=len(logits))
    with LLM(folder, kv_cache_dtype="int8") as llm:
        [request] = llm.generate([IDS], params)
    entries = request.outputs[0].logprobs[0]
    found = np.exp([entries[number].logprob for number in range(len(logits))])
    expected = softmax(logits.astype(float))
    assert answer["kl"] == pytest.approx((expected * np.log(expected / found)).sum(), rel=1e-3)
    assert answer["kl"] > 1e-6 and answer["largest_difference"] > 1e-3


@pytest.mark.parametrize(
    ("body", "param"),
    [({"tokens": []}, "tokens"), ({"tokens": [1] * 257}, "tokens"), ({"tokens": [5000]}, "tokens"),
     ({"tokens": [1] * 256}, "tokens"), ({"token": 5000}, "token"), ({"view": "lens"}, "view")],
)  # fmt: skip
def test_what_is_refused(exact, body, param):
    assert post(exact, PATH, 400, **{"tokens": [1, 2], **body})["error"]["param"] == param


def test_without_a_file_there_is_no_second_opinion(folder):
    with served(LLM(folder)) as client:
        assert PATH not in client.get("/inspect/model").json()["endpoints"]
        assert post(client, PATH, 400, tokens=[1])["error"]["code"] == "unsupported"
