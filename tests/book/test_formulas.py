"""Formulas come from formulas.json as MathML; one that is missing or that does not parse ends the build."""

import json
import shutil
import sys

import pytest

from helpers.prose import ROOT

pytestmark = pytest.mark.book
sys.path.insert(0, str(ROOT / "book"))
PAGE = (
    "# One\n\nThe sum $x + 1$.\n\n$$\nx^2\n$$ (eq-square)\n\n```{cell} a\n:checks: eq-square\nassert 3**2 == 9\n```\n"
)
DATA = '{"$x + 1$": "<math><mi>x</mi></math>", "$$x^2$$": "<math display=\\"block\\"><mi>x</mi></math>"}'


def test_mathml_is_written_as_it_is_kept(book):
    built = book({"chapters/one": PAGE, "formulas.json": DATA})
    assert built.code == 0, built.said
    page = built.page("chapters/one")
    assert "<math><mi>x</mi></math>" in page and '<math display="block"><mi>x</mi></math>' in page
    assert 'id="equation-eq-square"' in page and "(1.1)" in page


def test_a_missing_formula_ends_the_build_with_the_command_that_renders_it(book):
    built = book({"chapters/one": PAGE.replace("x + 1", r"\frac{1}"), "formulas.json": DATA})
    assert built.code != 0
    assert r"$\frac{1}$" in built.said and "make formulas" in built.said


def test_a_formula_that_leaves_the_data_ends_the_next_build(book):
    assert book({"chapters/one": PAGE, "formulas.json": DATA}).code == 0
    assert book({"chapters/one": PAGE, "formulas.json": "{}"}).code != 0


@pytest.mark.skipif(
    shutil.which("node") is None or not (ROOT / "book/node_modules/temml").exists(),
    reason="needs Node and Temml, as make formulas does",
)
class TestWithNode:
    def test_formulas_are_rendered_and_kept(self, book, tmp_path):
        link_temml(tmp_path)
        assert book({"chapters/one": PAGE, "formulas.json": "{}"}, "-D", "render_formulas=1").code == 0
        assert book({"chapters/one": PAGE}).code == 0

    def test_what_is_kept_is_what_temml_makes_of_it(self):
        from _ext.formulas import render

        kept = json.loads((ROOT / "book/formulas.json").read_text())
        assert render(list(kept), ROOT / "book") == kept

    @pytest.mark.parametrize("wrong", [r"\frac{1}", r"\undefinedmacro{x}", r"\left( x"])
    def test_what_does_not_parse_ends_the_build(self, book, tmp_path, wrong):
        link_temml(tmp_path)
        built = book({"chapters/one": PAGE.replace("x + 1", wrong)}, "-D", "render_formulas=1")
        assert built.code != 0 and "do not parse" in built.said and wrong in built.said


def link_temml(folder):
    (folder / "source").mkdir()
    (folder / "source/node_modules").symlink_to(ROOT / "book/node_modules")
