"""What suits a small text: characters as tokens, a small model, and steps that read little of it at once.

The defaults of settings.py suit a text of many megabytes: of 50 KB, one of their steps reads a third, and most of 4,096
tokens occur once or never. `nano-llama train` asks here; what a flag says is never changed.
Tests: tests/training/test_small_text.py.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nano_llama.core.units import size_text
from nano_llama.core.variants import LLAMA
from nano_llama.data.builtin import NAMES as SOURCE_NAMES
from nano_llama.data.sources import SPLITS, open_source
from nano_llama.training.settings import LENGTHS, SHAPE_NAMES

SMALL = 2_000_000  # bytes; a larger text gets the defaults
TINY = 20_000  # bytes; a text of this size is learned by heart within a minute
ALPHABET = 256  # characters beyond which bytes and their merges are the better tokens
BYTES_PER_TOKEN = 1_000  # of the vocabulary, where it is not of characters: enough to see every merge a few times
SMALLEST_BPE = 512  # 256 bytes, and as many merges


def suited(given: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The settings that are `given`, and for a small text those that suit it -> these, and why ("": none were added).

    Raises UserError or FormatError where the text cannot be read.
    """
    data = given.get("data")
    if not data or data in SOURCE_NAMES or not Path(data).expanduser().exists() or given.get("init_from"):
        return given, ""  # a model brings its own; and where the data are missing, the run itself says so
    source = open_source(data)
    size = source.size_hint()
    if size >= SMALL:
        return given, ""
    alphabet = count_characters(document.text for split in SPLITS for document in source.documents(split))
    suits = settings_for(size, alphabet)
    if any(given.get(name) is not None for name in SHAPE_NAMES if name not in LLAMA):
        suits.pop("model")  # its numbers belong to the shape that is the default
    if any(given.get(name) is not None for name in LENGTHS):
        suits.pop("max_minutes", None)
    chosen = {name: value for name, value in suits.items() if given.get(name) is None}
    if not chosen:
        return given, ""
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in chosen.items())
    what = f"{Path(data).name}: {size_text(size)} of {alphabet:,} different characters is a small text"
    return chosen | given, f"{what}. Settings of its size (your flags override them): {flags}"


def settings_for(size: int, alphabet: int) -> dict[str, Any]:
    """The settings that suit a text of so many bytes, of so many different characters."""
    by_characters = alphabet <= ALPHABET
    tiny = size < TINY
    return {
        "tokenizer": "char" if by_characters else f"bpe:{max(SMALLEST_BPE, size // BYTES_PER_TOKEN)}",
        "model": "char",
        "context": 32 if tiny else 64,
        "batch_size": 8 if tiny else 16,
        **({"max_minutes": 1.0} if tiny else {}),
    }


def count_characters(texts: Iterable[str]) -> int:
    """How many different characters occur."""
    return len(set().union(*texts))
