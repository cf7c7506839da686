"""Bits per byte of general compressors, the floor for a model of language: they know repetitions, but no English.

Not here: bits per byte of a model (training/evaluation.py). Tests: tests/evaluation/test_compressors.py.
"""

import bz2
import lzma
from collections.abc import Callable

from nano_llama.core.errors import UserError
from nano_llama.data.sources import Split, open_source

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "xz": lambda text: lzma.compress(text, preset=9 | lzma.PRESET_EXTREME),
    "bzip2": lambda text: bz2.compress(text, 9),
}


def compressed_bits_per_byte(name: str, text: bytes) -> float:
    """Bits that the compressor called `name` needs for each byte of `text`, all of it in one piece.

    Raises UserError for an empty text.
    """
    if not text:
        raise UserError("There is no text to compress.")
    return 8.0 * len(COMPRESSORS[name](text)) / len(text)


def split_text(data: str, split: Split = "val") -> bytes:
    """The documents of a source's split, one after the other, in UTF-8."""
    return b"".join(document.text.encode() for document in open_source(data).documents(split))
