"""A mistake stands with its history and a cell that repeats it."""

import pytest

pytestmark = pytest.mark.book
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


def test_an_erratum_without_its_cell_ends_the_build(book):
    built = book({"chapters/one": PAGE.replace(":cell: twice", ":cell: thrice")})
    assert built.code != 0 and "thrice" in built.said
