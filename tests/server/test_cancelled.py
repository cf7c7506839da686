"""Handlers that end at any moment, cancelled or because their client leaves: nothing is held, and nothing goes on."""

import asyncio
import json
import random
from contextlib import suppress

import pytest

from helpers.api import NAME, random_llm
from nano_llama.server.app import create_app
from nano_llama.server.service import Service
from nano_llama.server.settings import ServerSettings
from nano_llama.vol3_engine.async_engine import AsyncEngine

TEXT = {"prompt": ["the quick", "lazy dog"], "n": 3, "max_tokens": 8, "seed": 1, "ignore_eos": True}
HI = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "seed": 1}
BODIES = [
    ("/v1/completions", TEXT),
    ("/v1/completions", {**TEXT, "stream": True}),
    ("/v1/completions", {**TEXT, "logprobs": 2, "echo": True}),
    ("/v1/completions", {**TEXT, "structured_outputs": {"regex": "[a-z]{8}"}}),
    ("/v1/chat/completions", HI),
    ("/v1/chat/completions", {**HI, "stream": True, "response_format": {"type": "json_object"}}),
]


class Call:
    """One request of the application, as uvicorn would make it."""

    def __init__(self, app, path: str, body: dict):
        self.body, self.sent, self.gone = json.dumps(body).encode(), b"", asyncio.Event()
        self.read = False
        scope = {
            "type": "http", "method": "POST", "path": path, "headers": [(b"host", b"localhost")], "client": None,
            "query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("localhost", 80),
        }  # fmt: skip
        self.task = asyncio.create_task(app(scope, self.receive, self.send))

    async def receive(self) -> dict:
        await asyncio.sleep(0)
        if not self.read:
            self.read = True
            return {"type": "http.request", "body": self.body}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict) -> None:
        await asyncio.sleep(0)
        self.sent += message.get("body", b"")


@pytest.mark.parametrize("way", ["cancelled", "left"])
@pytest.mark.parametrize(("path", "body"), BODIES)
def test_at_any_moment(path, body, way):
    rng = random.Random(1)

    async def run():
        service = Service(ServerSettings(), [NAME])
        async with AsyncEngine(random_llm(max_num_seqs=4)) as engine:
            service.opened(engine)
            app = create_app(service)

            async def whole() -> list:
                call = Call(app, path, body)
                await call.task
                return without_ids(call.sent)

            right = await whole()
            began = asyncio.get_running_loop().time()
            assert await whole() == right
            longest = asyncio.get_running_loop().time() - began
            cut = 0
            for number in range(40):
                call = Call(app, path, body)
                if number < 20:
                    for _ in range(number):
                        await asyncio.sleep(0)
                else:
                    await asyncio.sleep(rng.uniform(0, longest))
                cut += not call.task.done()
                call.gone.set() if way == "left" else call.task.cancel()
                with suppress(asyncio.CancelledError):
                    await call.task
                assert not service.running and not service.in_flight and not engine._streams
            assert cut >= 20
            for _ in range(1_000):
                if not engine.stats().busy and not engine.stats().blocks_held:
                    break
                await asyncio.sleep(0.01)
            assert not engine.stats().busy and not engine.stats().blocks_held and not engine._preparation.samples
            assert await whole() == right
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) == 1, "nobody listens or prepares any more"

    asyncio.run(run())


def without_ids(sent: bytes) -> list:
    """The choices of an answer or of a stream, joined by index."""
    lines = [line.removeprefix(b"data: ") for line in sent.split(b"\n\n") if line and line != b"data: [DONE]"]
    texts: dict[int, str] = {}
    for choice in [choice for line in lines for choice in json.loads(line)["choices"]]:
        message = choice.get("delta") or choice.get("message") or {}
        text = choice.get("text") or message.get("content") or ""
        texts[choice["index"]] = texts.get(choice["index"], "") + text
    return sorted(texts.items())
