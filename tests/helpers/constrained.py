"""Models without sense for the tests of constraints: noise over a tokenizer's vocabulary."""

import zlib

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, trainers

from helpers.stub_engine import ScriptedRunner
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.backend import Backend
from nano_llama.vol3_engine.llm import LLM

TEXTS = [
    'The quick brown fox jumps over 13 lazy dogs. {"name": "Zoé", "tags": ["a", "b"], "n": [1, 2.5e3, true, null]}\n',
    "def area(width, height):\n    return width * height  # naïve, 日本語 🦙🙂\n",
] * 4


class NoiseRunner(ScriptedRunner):
    """Logits that depend on the text alone, and know nothing of it. broken: texts of this length get NaNs."""

    def __init__(self, vocab_size: int, broken: int | None = None, **config):
        super().__init__(vocab_size=vocab_size, **config)
        self.broken = broken

    def logits(self, text: tuple[int, ...]) -> np.ndarray:
        seed = zlib.crc32(np.array(text, np.int64).tobytes())
        row = np.random.default_rng(seed).normal(0, 3, self.config.vocab_size).astype(np.float32)
        if len(text) == self.broken:
            row[-1] = np.nan
        return row


def noise_llm(
    tokenizer: Tokenizer, broken: int | None = None, extra_rows: int = 0, context: int = 512, **settings
) -> LLM:
    """extra_rows: how many more tokens the model has than the tokenizer."""
    config = {"max_position_embeddings": context}
    return LLM.from_runner(NoiseRunner(tokenizer.vocab_size + extra_rows, broken, **config), tokenizer, **settings)


def byte_level() -> Tokenizer:
    return Tokenizer.train_bpe(TEXTS, 500)


def characters() -> Tokenizer:
    """Without any special token: nothing ends a text."""
    return Tokenizer.train_char("".join(TEXTS) + "".join(map(chr, range(32, 127))) + "\\/\n")


def sentencepiece() -> Tokenizer:
    """BPE in SentencePiece's style: a space in front of every text, and bytes for what the vocabulary lacks."""
    library = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    specials = [AddedToken(name, special=True, normalized=False) for name in ("<unk>", "<s>", "</s>")]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*specials, *(AddedToken(piece, normalized=False) for piece in pieces)],
        initial_alphabet=["{", "}", "▁"], show_progress=False,
    )  # fmt: skip
    library.train_from_iterator(TEXTS, trainer)
    return Tokenizer(Backend(without_added(library, pieces)))


def without_added(library: tokenizers.Tokenizer, names: list[str]) -> tokenizers.Tokenizer:
    """The pieces for bytes belong to the model itself, as in Llama 2's file."""
    import json

    document = json.loads(library.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] not in names]
    return tokenizers.Tokenizer.from_str(json.dumps(document))
