"""Code of the package is quoted as it stands."""

import inspect
import sys

import pytest

from helpers.prose import ROOT
from nano_llama.core.loss import bits_per_byte

pytestmark = pytest.mark.book
sys.path.insert(0, str(ROOT / "book"))


def test_a_function_is_found_at_its_lines():
    from _ext.sources import find

    quoted = find("nano_llama.core.loss:bits_per_byte")
    text, first = inspect.getsourcelines(bits_per_byte)
    assert quoted.lines == range(first, first + len(text))
    assert list(quoted.docstring_lines) == [first + 1]


@pytest.mark.parametrize("name", ["nano_llama.core.loss:nothing", "nano_llama.nowhere:f"])
def test_what_is_not_there_is_refused(name):
    from _ext.facts import BookError
    from _ext.sources import find

    with pytest.raises(BookError, match=r"nothing|nowhere"):
        find(name)


def test_part_of_an_object_is_quoted_between_two_texts():
    from _ext.facts import BookError
    from _ext.sources import between, find

    quoted = find("nano_llama.evaluation.compressors")
    lines = quoted.text.splitlines()
    part = between(quoted, list(quoted.lines), "COMPRESSORS: dict", "}")
    assert lines[part[0] - 1].startswith("COMPRESSORS") and lines[part[-1] - 1] == "}"
    with pytest.raises(BookError):
        between(quoted, list(quoted.lines), "COMPRESSORS: dict", "no such text")


def test_the_docstring_is_left_out_unless_it_is_asked_for(book):
    quote = "# One\n\n```{source} nano_llama.core.loss:bits_per_byte\n```\n"
    built = book({"chapters/one": quote})
    assert built.code == 0, built.said
    assert "comparable between tokenizers" not in built.page("chapters/one")
    built = book({"chapters/one": quote.replace("\n```\n", "\n:docstring:\n```\n")})
    assert "comparable between tokenizers" in built.page("chapters/one")
