"""A server's application around a tiny model, to be asked without a socket."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from starlette.testclient import TestClient

from helpers.served import SOON, Served
from helpers.stub_engine import ScriptedRunner
from nano_llama import LLM
from nano_llama.core.config import LlamaConfig
from nano_llama.core.init import init_params
from nano_llama.formats import save_hf
from nano_llama.server.adapters import Adapter
from nano_llama.server.app import create_app
from nano_llama.server.replayer import Replayer
from nano_llama.server.service import Service
from nano_llama.server.settings import ServerSettings
from nano_llama.tokenizer import Tokenizer
from nano_llama.vol1_numpy import Llama
from nano_llama.vol3_engine.async_engine import AsyncEngine

NAME = "tiny"
TEXT = "the quick brown fox jumps over the lazy dog, naïve café, 漢字 and 🙂🙃 too. " * 20
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# The same for tools: it shows them, implies Hermes' form of calls, and reads earlier ones.
TOOL_TEMPLATE = "{{ tools }}<tool_call>" + TEMPLATE.replace("content }}", "content }}{{ message.tool_calls or '' }}")


def bpe(vocab_size: int = 300, chat_template: str | None = TEMPLATE) -> Tokenizer:
    """Byte-level BPE of ours; its id 0 ends a text. 257 tokens: bytes only."""
    trained = Tokenizer.train_bpe([TEXT], vocab_size)
    return Tokenizer(trained.backend, trained.roles, chat_template)


def config(tokenizer: Tokenizer, **changes) -> LlamaConfig:
    return LlamaConfig(
        **{
            "vocab_size": tokenizer.vocab_size,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "rope_theta": 10_000.0,
            "tie_word_embeddings": True,
            "initializer_range": 0.4,
            "eos_token_id": tokenizer.eos_id,
            **changes,
        }
    )


def random_llm(tokenizer: Tokenizer | None = None, **settings) -> LLM:
    """Random weights: all its text is noise, full of characters that are cut."""
    tokenizer = tokenizer or bpe()
    shape = config(tokenizer)
    return LLM.from_model(Llama(shape, init_params(shape, seed=3)), tokenizer, **settings)


def random_folder(folder: Path, tokenizer: Tokenizer | None = None) -> Path:
    """The same model, saved."""
    tokenizer = tokenizer or bpe()
    shape = config(tokenizer)
    save_hf(folder, shape, init_params(shape, seed=3), tokenizer)
    return folder


class TextRunner(ScriptedRunner):
    """Continues what ends with a key of the script by its text, byte by byte, and then ends the text."""

    def __init__(self, tokenizer: Tokenizer, script: dict[str, str], **changes):
        super().__init__(**{"vocab_size": tokenizer.vocab_size, "eos_token_id": tokenizer.eos_id, **changes})
        self.encoded = {tuple(tokenizer.encode(key)): tokenizer.encode(text) for key, text in script.items()}

    def logits(self, text: tuple[int, ...]) -> np.ndarray:
        row = np.zeros(self.config.vocab_size, np.float32)
        for prompt, script in self.encoded.items():
            for begin in range(len(text) - len(prompt) + 1):
                output = text[begin + len(prompt) :]
                if text[begin : begin + len(prompt)] == prompt and list(output) == script[: len(output)]:
                    row[script[len(output)] if len(output) < len(script) else self.config.eos_token_id] = 50.0
                    return row
        return row


def scripted_llm(script: dict[str, str], chat_template: str | None = TEMPLATE, **changes) -> LLM:
    tokenizer = bpe(257, chat_template)
    runner = TextRunner(tokenizer, script, **{"max_position_embeddings": 1024, **changes})
    return LLM.from_runner(runner, tokenizer)


@contextmanager
def served(
    llm: LLM, adapters: Sequence[Adapter] = (), replayer: Replayer | None = None, **settings
) -> Iterator[TestClient]:
    """A client of an application that serves this model. Afterwards the engine must hold no block."""
    service = Service(ServerSettings(**settings), [NAME], adapters)
    service.replayer = replayer
    engine = AsyncEngine(llm)
    service.opened(engine)
    with TestClient(create_app(service), raise_server_exceptions=False, base_url="http://localhost") as client:
        yield client
    assert engine.stats().blocks_held == 0, "a finished request holds no block"
    asyncio.run(engine.close())


@contextmanager
def listening(llm: LLM, **settings) -> Iterator[str]:
    """The address of a real server, on a free port of this machine."""
    with Served(load=lambda: llm, **settings) as server:
        assert server.ready.wait(SOON), "the server starts"
        yield f"http://127.0.0.1:{server.port}"


def post(client: TestClient, path: str, status: int = 200, **body):
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def events(client: TestClient, path: str, **body) -> list[dict]:
    """The chunks of a stream, which must end with [DONE]."""
    answer = client.post(path, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
