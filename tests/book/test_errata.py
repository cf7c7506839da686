"""A mistake stands with its history and a cell that repeats it."""

import sys

import pytest

from helpers.prose import ROOT

pytestmark = pytest.mark.book
sys.path.insert(0, str(ROOT / "book"))
PAGE = """# One

```{cell} twice
assert 2 * 2 != 5
```

```{erratum} Five instead of four
:where: https://example.org/a/pull/1
:cell: twice

It said five.
```
"""
LEDGER = "# Errata\n\n```{ledger}\n```\n"


def test_the_ledger_lists_it_with_its_cell(book):
    built = book({"chapters/one": PAGE, "errata": LEDGER})
    assert built.code == 0, built.said
    page = built.page("errata")
    assert 'href="chapters/one.html#erratum-five-instead-of-four"' in page
    assert 'href="chapters/one.html#cell-twice"' in page and "https://example.org/a/pull/1" in page


def test_addresses_are_shown_short():
    from _ext.errata import short

    assert short("https://github.com/a/b-c/pull/12") == "a/b-c #12"
    assert short("https://github.com/a/b/issues/3#issuecomment-1") == "a/b #3"
    assert short("https://arxiv.org/abs/1910.07467") == "arxiv.org/abs/1910.07467"


def test_an_erratum_without_its_cell_ends_the_build(book):
    built = book({"chapters/one": PAGE.replace(":cell: twice", ":cell: thrice")})
    assert built.code != 0 and "thrice" in built.said
