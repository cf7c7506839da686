"""/inspect/replay (nano_llama/server/inspection/replay.py): Volume 1 computes again what the engine served."""

import asyncio
import os
import sys
import threading

import numpy as np
import pytest

from helpers.api import bpe, post, served
from helpers.replayed import unpacked
from nano_llama import LLM
from nano_llama.server import replayer as replaying
from nano_llama.server.replayer import NICENESS, Replayer, Stopped
from nano_llama.vol1_numpy import Llama

PATH = "/inspect/replay"
IDS = bpe().encode("the quick brown fox jumps over the lazy dog")


@pytest.fixture(scope="module")
def client(folder):
    with served(LLM(folder, dtype="float32"), replayer=Replayer(folder)) as client:
        yield client


def replay(client, view: str, tokens=IDS, **body) -> tuple[dict, dict[str, np.ndarray]]:
    answer = client.post(PATH, json={"tokens": tokens, "view": view, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    head, arrays = unpacked(answer.content)
    assert head["by"] == "Volume 1, float32" and head["view"] == view
    return head, arrays


def test_the_last_row_of_the_lens_is_what_is_served(client):
    pins = [IDS[0], 70, 299]
    head, found = replay(client, "lens", first=len(IDS) - 5, pins=pins)
    assert head["first"] == len(IDS) - 5 and found["ids"].shape == (3, 5, 5) and found["pin_p"].shape == (3, 5, 3)
    for place in range(5):
        answer = post(client, "/inspect/next", prompt=IDS[: head["first"] + place + 1])
        top = answer["top"]
        assert found["ids"][-1, place].tolist() == top["ids"][:5]
        np.testing.assert_allclose(found["p"][-1, place], top["p"][:5], rtol=1e-4)
        assert found["entropy"][-1, place] == pytest.approx(answer["entropy"], rel=1e-4)
        by_id = dict(zip(top["ids"], top["p"], strict=True))
        for number, pin in enumerate(pins):
            rank = found["pin_rank"][-1, place, number]
            if pin in by_id:
                assert found["pin_p"][-1, place, number] == pytest.approx(by_id[pin], rel=1e-3)
                assert top["ids"][rank - 1] == pin


def test_rows_before_are_the_stream_of_that_layer(client, folder):
    """Against the model cut off after its first layer."""
    model = Llama.from_pretrained(folder)
    cut = type(model.config)(**{**vars(model.config), "num_hidden_layers": 1})
    short = Llama(cut, {name: model.params[name] for name in model.params if ".layers.1." not in name})
    _, found = replay(client, "lens", first=0)
    logits = short.forward(np.array([IDS]))[0]
    assert (found["ids"][1, :, 0] == logits.argmax(axis=1)).all() and len(found["ids"]) == 3


def test_the_shares_add_up_to_the_logit_that_is_served(client):
    answer = post(client, "/inspect/next", prompt=IDS)["top"]
    for place in (0, 3, 200):
        token = answer["ids"][place]
        head, found = replay(client, "attribution", token=token)
        assert head["names"] == ["embedding", "attention 0", "mlp 0", "attention 1", "mlp 1"]
        assert found["shares"].shape == (5,) and head["token"] == token and head["position"] == len(IDS) - 1
        assert found["shares"].sum() == pytest.approx(head["logit"], abs=1e-4)
        assert found["shares"].sum() == pytest.approx(answer["logits"][place], abs=1e-4)
    head, found = replay(client, "attribution", position=4)
    first = post(client, "/inspect/next", prompt=IDS[:5])["top"]
    assert (head["token"], head["position"]) == (first["ids"][0], 4)
    assert found["shares"].sum() == pytest.approx(first["logits"][0], abs=1e-4)


def test_attention_of_every_head(client, folder):
    _, found = replay(client, "attention", layer=1)
    weights, T = found["weights"], len(IDS)
    assert weights.shape == (4, T, T) and weights.dtype == np.float16
    np.testing.assert_allclose(weights.astype(float).sum(axis=2), 1, atol=2e-3)
    assert (weights[:, ~np.tri(T, dtype=bool)] == 0).all(), "nobody attends to what comes later"
    head, every = replay(client, "attention")
    assert every["weights"].shape == (2, 4, T, T) and every["weights"].dtype == np.uint8 and head["scale"] == 255
    np.testing.assert_allclose(every["weights"][1] / 255, weights, atol=3e-3)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tokens": []}, "tokens"),
        ({"tokens": [1] * 257}, "tokens"),
        ({"tokens": [5000]}, "tokens"),
        ({"tokens": [1] * 100, "first": 0}, "tokens"),
        ({"first": 2}, "first"),
        ({"pins": [5000]}, "pins"),
        ({"layer": 1}, "layer"),
        ({"view": "attention", "layer": 2}, "layer"),
        ({"view": "attribution", "position": 2}, "position"),
        ({"view": "neurons"}, "view"),
    ],
)
def test_what_is_refused(client, body, param):
    assert post(client, PATH, 400, **{"tokens": [1, 2], "view": "lens", **body})["error"]["param"] == param


def test_one_at_a_time(folder, monkeypatch):
    monkeypatch.setattr(replaying, "PATIENCE", 0.05)
    replayer, entered, leave = Replayer(folder), threading.Event(), threading.Event()
    original = replayer._replay.layers

    def slowly(tokens):
        for layer in original(tokens):
            entered.set()
            assert leave.wait(30)
            yield layer

    replayer._replay.layers = slowly
    with served(LLM(folder, dtype="float32"), replayer=replayer) as client:
        first = threading.Thread(target=replay, args=(client, "lens"))
        first.start()
        assert entered.wait(30)
        busy = client.post(PATH, json={"tokens": IDS, "view": "lens"})
        assert busy.status_code == 429 and busy.json()["error"]["code"] == "busy" and busy.headers["retry-after"]
        assert post(client, "/v1/completions", prompt="the", max_tokens=2), "the engine goes on"
        leave.set()
        first.join(30)
        replay(client, "lens")


def test_it_stops_when_nobody_waits_any_more(folder):
    """Between two layers, in a thread of the lowest priority; what is asked next waits until then."""
    replayer, entered, leave = Replayer(folder), threading.Event(), threading.Event()
    seen: list[object] = []

    def work(run) -> None:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        try:
            for layer in run.layers(np.array(IDS)):
                seen.append(layer.index)
                entered.set()
                leave.wait(30)
        except Stopped as stopped:
            seen.append(type(stopped))
            raise

    async def leaves() -> None:
        task = asyncio.create_task(replayer.run(work))
        await asyncio.to_thread(entered.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        first = replayer._running
        asked_next = [asyncio.create_task(replayer.run(lambda run: first.done())) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert not first.done(), "it cannot be stopped within a layer"
        leave.set()
        answers = await asyncio.gather(*asked_next, return_exceptions=True)
        assert True in answers, "one of them runs, after the first"
        assert all(answer is True or answer.code == "busy" for answer in answers)

    asyncio.run(leaves())
    assert seen[1:] == [0, Stopped], "the second layer is not shown to anybody"
    assert seen[0] == NICENESS or sys.platform != "linux"


def test_without_a_file_there_is_nothing_to_replay(folder):
    with served(LLM(folder)) as client:
        assert PATH not in client.get("/inspect/model").json()["endpoints"]
        assert post(client, PATH, 400, tokens=[1], view="lens")["error"]["code"] == "unsupported"
