"""The whole book builds without Node, its shares are above their bars, and a page is built again when it must be."""

import json
import re

import pytest

from helpers.prose import ROOT

pytestmark = pytest.mark.book


def test_the_book_builds(whole):
    assert whole.code == 0, whole.said[-3000:]
    assert (whole.site / "index.html").exists() and (whole.site / "searchindex.js").exists()


def test_shares_are_printed_and_above_their_bars(whole):
    shares = re.findall(r"(\d+) of (\d+) \((\d+\.\d)%, bar (\d+)%\)", whole.said)
    assert len(shares) == 3
    for part, everything, percent, bar in shares:
        share = int(part) / int(everything) if int(everything) else 1.0
        assert float(percent) == pytest.approx(100 * share, abs=0.06)
        assert float(percent) >= float(bar)


def test_every_chapter_is_in_the_site_and_as_long_as_a_chapter(whole):
    for chapter in sorted((ROOT / "book" / "chapters").glob("*.md")):
        text = re.sub(r"```.*?```|\$\$.*?\$\$", "", chapter.read_text(), flags=re.S)
        assert (whole.site / "chapters" / f"{chapter.stem}.html").exists()
        assert 1500 <= len(text.split()) <= 4500, chapter.name  # prose; code and formulas come on top


def test_pages_are_small(whole):
    for page in whole.site.rglob("*.html"):
        assert page.stat().st_size <= 300_000, page.name


def test_all_formulas_that_are_kept_are_used(whole):
    used = set()
    for page in whole.site.rglob("*.html"):
        used |= set(re.findall(r"<math.*?</math>", page.read_text(), flags=re.S))
    kept = json.loads((ROOT / "book" / "formulas.json").read_text())
    assert not [tex for tex, mathml in kept.items() if mathml not in used]


def test_an_unchanged_book_is_not_read_again(book):
    pages = {"chapters/one": "# One\n\n```{cell} a\nprint(6 * 7)\n```\n"}
    assert book(pages).code == 0
    again = book(pages)
    assert again.code == 0 and "0 added, 0 changed" in again.said
