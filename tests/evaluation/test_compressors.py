"""Compressors: their bits are those of a file that the standard library's own tools would write."""

import bz2
import lzma

import pytest

from nano_llama.core.errors import UserError
from nano_llama.evaluation.compressors import compressed_bits_per_byte, split_text

TEXT = b"It was the best of times, it was the worst of times. " * 50


@pytest.mark.parametrize(("name", "open_again"), [("xz", lzma.decompress), ("bzip2", bz2.decompress)])
def test_bits_are_those_of_an_archive_that_decompresses(name, open_again):
    from nano_llama.evaluation.compressors import COMPRESSORS

    packed = COMPRESSORS[name](TEXT)
    assert open_again(packed) == TEXT
    assert compressed_bits_per_byte(name, TEXT) == 8 * len(packed) / len(TEXT) < 1.0


def test_nothing_to_compress():
    with pytest.raises(UserError, match="text is empty"):
        compressed_bits_per_byte("xz", b"")


def test_the_text_is_the_split_alone(tmp_path):
    for name, text in (("a.txt", "train one"), ("val.txt", "held out, né")):
        (tmp_path / name).write_text(text)
    assert split_text(str(tmp_path)) == "held out, né".encode()
    assert split_text(str(tmp_path), "train") == b"train one"
