"""Stand-ins for a model and a tokenizer of the engine, small enough to see through."""

import codecs
import zlib

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.vol3_engine.batch import Chunk, PackedBatch
from nano_llama.vol3_engine.images import ImageRows, PlacedImage

END = 256  # the byte tokenizer's end of text
IMAGE = 259
VOCABULARY = 260
IMAGE_ROWS = 6


def placed_image(start: int, seed: int) -> PlacedImage:
    """An image whose rows are numbers that no other image and no token has."""
    rows = np.arange(IMAGE_ROWS, dtype=np.float32)[:, None] + 1000 + 100 * seed  # (6,1)
    return PlacedImage(start, ImageRows(b"image %d" % seed, rows))


def with_images(tokens, images) -> tuple[int, ...]:
    """Tokens as ScriptedRunner reads them: where an image stands, its rows."""
    read = list(tokens)
    for placed in images:
        for number, (row,) in enumerate(placed.image.rows):
            if placed.start + number < len(read):
                read[placed.start + number] = int(row)
    return tuple(read)


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
    """Continues each prompt by its script, byte by byte and then END; without a script, with noise seeded by the text.

    The text is read back from the blocks where `execute` has put it, so a wrong block table gives a wrong output. In
    the places of an image it holds the numbers of its rows.
    Every step is recorded: (rows, sequences that sample).
    """

    separate_prefill = False
    weight_bytes = 20_000

    def __init__(self, script: dict[str, str] | None = None, kv_bytes_per_token: int = 1, **config):
        self.config = small_config(**config)
        self.kv_bytes_per_token = kv_bytes_per_token
        self.script = {tuple(key.encode()): value.encode() for key, value in (script or {}).items()}
        self.steps: list[tuple[int, int]] = []
        self.closed = False

    def allocate(self, num_blocks: int, block_size: int) -> None:
        self.cells = np.full((num_blocks, block_size), -1)
        self.of_prompts = np.zeros((num_blocks, block_size), bool)  # whether a prefill row wrote the token

    def execute(self, batch: PackedBatch) -> np.ndarray:
        size = self.cells.shape[1]
        self.steps.append((batch.num_tokens, len(batch.logit_rows)))
        texts = {}
        given = {first + row: int(v) for first, values in batch.embeddings for row, (v,) in enumerate(values)}
        for s in range(batch.num_sequences):
            for row in range(batch.starts[s], batch.starts[s + 1]):
                position = batch.positions[s] + row - batch.starts[s]
                place = batch.block_tables[s][position // size], position % size
                self.cells[place] = given.get(row, batch.token_ids[row])
                self.of_prompts[place] = row - batch.starts[s] < batch.prefill_rows[s]
        for s in range(batch.num_sequences):
            text = self.cells[batch.block_tables[s]].reshape(-1)[: batch.length(s)]
            assert (text >= 0).all(), "a slot is read that was never written"
            if self.separate_prefill:
                of_prompt = self.of_prompts[batch.block_tables[s]].reshape(-1)[: batch.length(s)]
                assert (np.diff(of_prompt.astype(int)) <= 0).all(), "a prefill row behind a decode row"
            for row in range(batch.starts[s], batch.starts[s + 1]):
                texts[row] = text[: batch.positions[s] + row - batch.starts[s] + 1]
        return np.array([self.logits(tuple(texts[row].tolist())) for row in batch.logit_rows], np.float32)

    def logits(self, text: tuple[int, ...]) -> np.ndarray:
        for prompt, script in self.script.items():
            output = text[len(prompt) :]
            if text[: len(prompt)] == prompt and output == tuple(script[: len(output)]):
                row = np.zeros(VOCABULARY, np.float32)
                row[script[len(output)] if len(output) < len(script) else END] = 50.0
                return row
        seed = zlib.crc32(np.array(text, np.int64).tobytes())
        return np.random.default_rng(seed).normal(0, 3, VOCABULARY).astype(np.float32)

    def close(self) -> None:
        self.closed = True


class PackedTexts:
    """Texts in a runner's blocks, which are scattered by a seed, fed to it in chunks of any size.

    prompt_length: how many tokens of each text are prefill rows; the others are decode rows. adapters: text -> name.
    """

    def __init__(self, runner, num_blocks: int = 40, block_size: int = 4, seed: int = 0, prompt_length: int = 0):
        runner.allocate(num_blocks, block_size)
        self.prompt_length = prompt_length
        self.runner, self.block_size = runner, block_size
        self.free = list(np.random.default_rng(seed).permutation(num_blocks).tolist())
        self.adapters: dict[int, str | None] = {}
        self.tables: dict[int, list[int]] = {}
        self.lengths: dict[int, int] = {}

    def step(self, pieces: dict[int, list[int]], quiet: tuple[int, ...] = ()) -> dict[int, np.ndarray]:
        """Append {text: tokens}, in the dict's order -> {text: the logits of its last row}, but for the quiet ones."""
        batch, wanted = self.pack(pieces, quiet)
        logits = self.runner.execute(batch)
        assert logits.dtype == np.float32 and logits.shape == (len(wanted), self.runner.config.vocab_size)
        return dict(zip(wanted, logits.copy(), strict=True))

    def pack(self, pieces: dict[int, list[int]], quiet: tuple[int, ...] = ()) -> tuple[PackedBatch, list[int]]:
        chunks = []
        for text, tokens in pieces.items():
            table, length = self.tables.setdefault(text, []), self.lengths.get(text, 0)
            self.lengths[text] = length + len(tokens)
            while len(table) * self.block_size < self.lengths[text]:
                table.append(self.free.pop())
            num_logits, adapter = int(text not in quiet), self.adapters.get(text)
            chunks.append(Chunk(tokens, length, self.prompt_length, table, num_logits, adapter))
        return PackedBatch.pack(chunks), [text for text in pieces if text not in quiet]
