"""The site's checker finds what is broken and what comes from outside, and leaves alone what is well."""

import sys

import pytest

from helpers.prose import ROOT

pytestmark = pytest.mark.book
sys.path.insert(0, str(ROOT / "book"))


@pytest.mark.parametrize(
    ("html", "says"),
    [
        ('<a href="no.html">x</a>', "not there"),
        ('<a href="other.html#no">x</a>', "no such anchor"),
        ('<a href="#no">x</a>', "no such anchor"),
        ('<img src="no.png">', "not there"),
        ('<script src="https://example.org/x.js"></script>', "loads https"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "loads //"),
        ('<p style="background: url(https://example.org/x.png)">x</p>', "loads https"),
    ],
)
def test_problems_are_found(tmp_path, html, says):
    from _ext.site import problems

    (tmp_path / "other.html").write_text('<p id="yes">x</p>')
    (tmp_path / "page.html").write_text(html)
    found = problems(tmp_path)
    assert len(found) == 1 and says in found[0]


def test_styles_that_load_from_outside_are_found(tmp_path):
    from _ext.site import problems

    (tmp_path / "x.css").write_text("@import 'https://example.org/font.css'; a { background: url(data:x) }")
    assert problems(tmp_path) == ["x.css loads https://example.org/font.css"]


def test_a_whole_site_is_left_alone(tmp_path):
    from _ext.site import problems

    (tmp_path / "other.html").write_text('<p id="yes">x</p><a href="https://example.org">out</a>')
    (tmp_path / "page.html").write_text('<a href="other.html#yes">x</a> <a href="page.html">x</a> <a href="#">x</a>')
    assert not problems(tmp_path)


def test_the_book_is_whole(whole):
    from _ext.site import problems

    assert whole.code == 0 and not problems(whole.site)
