"""Bits per byte of general compressors, the baseline of a language model: they find repetitions, but know no English.

Tests: tests/evaluation/test_compressors.py.
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
    """Bits that the compressor `name` needs per byte of `text`, compressed as one piece.

    Raises UserError for an empty text.
    """
    if not text:
        raise UserError("Nothing to compress: the text is empty.")
    return 8.0 * len(COMPRESSORS[name](text)) / len(text)


def split_text(data: str, split: Split = "val") -> bytes:
    """The documents of a source's split, one after the other, in UTF-8."""
    return b"".join(document.text.encode() for document in open_source(data).documents(split))
