"""Stand-ins for a model and a tokenizer, small enough to see through: the fixture `stubs` hands them to the tests."""

import codecs
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig
from nano_llama.vol3_engine.batch import PackedBatch

END = 256  # the byte tokenizer's end of text
VOCABULARY = 260


class ByteDecoder:
    def __init__(self):
        self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self.utf8.decode(bytes([token])) if token < 256 else ""

    def finish(self) -> str:
        return self.utf8.decode(b"", final=True)


class ByteTokenizer:
    """Ids are bytes; 256 ends a text, and the rest of the vocabulary has no text."""

    stop_ids = frozenset({END})
    vocab_size = VOCABULARY

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids, *, skip_special: bool = True, continues: bool = False) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def decoder(self, skip_special: bool = True, *, continues: bool = False) -> ByteDecoder:
        return ByteDecoder()

    def encode_chat(self, messages, add_generation_prompt: bool = True) -> list[int]:
        return self.encode("".join(f"{m['role']}: {m['content']}\n" for m in messages) + "assistant:")


def small_config(**changes) -> LlamaConfig:
    base = dict(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
    )
    return LlamaConfig(**{**base, **changes})


class ScriptedRunner:
    """Continues each prompt by its script, byte by byte and then END; prompts without one get noise made of the text.

    Either way the logits are a function of the text alone, and every batch that was run is written down.
    """

    def __init__(self, script: dict[str, str] | None = None, kv_bytes_per_token: int = 1, **config):
        self.config = small_config(**config)
        self.kv_bytes_per_token = kv_bytes_per_token
        self.script = {tuple(key.encode()): value.encode() for key, value in (script or {}).items()}
        self.batches: list[tuple[int, int]] = []  # (texts, cache length)

    def batch(self, prompts, cache_length: int) -> "ScriptedBatch":
        self.batches.append((len(prompts), cache_length))
        return ScriptedBatch(self, [list(prompt) for prompt in prompts], cache_length)

    def logits(self, prompt: tuple[int, ...], output: list[int]) -> np.ndarray:
        if prompt not in self.script:
            seed = zlib.crc32(np.array([*prompt, *output], np.int64).tobytes())
            return np.random.default_rng(seed).normal(0, 3, VOCABULARY).astype(np.float32)
        row = np.zeros(VOCABULARY, np.float32)
        script = self.script[prompt]
        row[script[len(output)] if len(output) < len(script) else END] = 50.0
        return row


class ScriptedBatch:
    def __init__(self, runner: ScriptedRunner, prompts: list[list[int]], cache_length: int):
        self.runner = runner
        self.rows = [(tuple(prompt), list[int]()) for prompt in prompts]
        self.columns = max(len(prompt) for prompt in prompts)
        self.cache_length = cache_length

    def prefill(self) -> np.ndarray:
        return np.stack([self.runner.logits(*row) for row in self.rows])

    def decode(self, tokens) -> np.ndarray:
        self.columns += 1
        assert self.columns <= self.cache_length, "the cache is full"
        for (_, output), token in zip(self.rows, tokens, strict=True):
            output.append(token)
        return self.prefill()

    def keep(self, rows) -> None:
        self.rows = [self.rows[row] for row in rows]


class PackedTexts:
    """Texts in a runner's blocks, scattered by a seed, fed to it in pieces of any size."""

    def __init__(self, runner, num_blocks: int = 40, block_size: int = 4, seed: int = 0):
        runner.allocate(num_blocks, block_size)
        self.runner, self.block_size = runner, block_size
        self.free = list(np.random.default_rng(seed).permutation(num_blocks).tolist())
        self.tables: dict[int, list[int]] = {}
        self.lengths: dict[int, int] = {}

    def step(self, pieces: dict[int, list[int]], quiet: tuple[int, ...] = ()) -> dict[int, np.ndarray]:
        """Append {text: tokens}, in the dict's order -> {text: the logits of its last row}, but for the quiet ones."""
        batch, wanted = self.pack(pieces, quiet)
        logits = self.runner.execute(batch)
        assert logits.dtype == np.float32 and logits.shape == (len(wanted), self.runner.config.vocab_size)
        return dict(zip(wanted, logits.copy(), strict=True))

    def pack(self, pieces: dict[int, list[int]], quiet: tuple[int, ...] = ()) -> tuple[PackedBatch, list[int]]:
        ids, starts, positions, tables, rows = [], [0], [], [], []
        for text, tokens in pieces.items():
            table, length = self.tables.setdefault(text, []), self.lengths.get(text, 0)
            self.lengths[text] = length + len(tokens)
            while len(table) * self.block_size < self.lengths[text]:
                table.append(self.free.pop())
            ids += tokens
            starts.append(len(ids))
            positions.append(length)
            tables.append(list(table))
            if text not in quiet:
                rows.append(len(ids) - 1)
        return PackedBatch(ids, starts, positions, tables, rows), [text for text in pieces if text not in quiet]


@pytest.fixture(scope="session")
def stubs() -> SimpleNamespace:
    return SimpleNamespace(
        END=END,
        ByteDecoder=ByteDecoder,
        ByteTokenizer=ByteTokenizer,
        ScriptedRunner=ScriptedRunner,
        small_config=small_config,
        PackedTexts=PackedTexts,
    )
