"""A chapter is a program: its cells and numbers run from top to bottom in one fresh process."""

import json

import pytest

pytestmark = pytest.mark.book


def cell(name: str, code: str, *options: str) -> str:
    return "\n".join([f"```{{cell}} {name}", *options, "", code, "```", ""])


def test_cells_share_a_namespace_and_numbers_see_what_is_above_them(book):
    text = "# One\n\n" + cell("a", "x = 2\nprint('two', x)") + "\n{n}`x:.1f`\n\n" + cell("b", "x += 5") + "\n{n}`x`\n"
    built = book({"chapters/one": text})
    assert built.code == 0, built.said
    page = built.page("chapters/one")
    assert '<span class="number">2.0</span>' in page and '<span class="number">7</span>' in page
    assert '<pre class="printed">two 2\n</pre>' in page


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (cell("a", "assert 1 + 1 == 3"), "AssertionError"),
        (cell("a", "x = 1\nraise ValueError('of this cell')"), "of this cell"),
        ("{n}`2.5`", "is typed"),
        ("{n}`unknown_name`", "unknown_name"),
        (cell("a", "x = 1", ":checks: eq-a"), "asserts nothing"),
        (cell("a", "x = 1", ":recorded: x"), "make record"),
    ],
)
def test_what_does_not_hold_ends_the_build(book, text, says):
    built = book({"chapters/one": f"# One\n\n{text}\n"})
    assert built.code != 0
    assert says in built.said and "chapters/one" in built.said


def test_each_chapter_has_a_process_of_its_own(book):
    pages = {"chapters/one": "# One\n\n" + cell("a", "x = 1"), "chapters/two": "# Two\n\n" + cell("a", "print(x)")}
    assert "NameError" in book(pages).said


def test_a_figure_is_drawn_in_light_and_in_dark(book):
    drawing = "from matplotlib import pyplot as plt\nplt.plot([1, 2], [3, 4])"
    built = book({"chapters/one": "# One\n\n" + cell("line", drawing, ":figure: A rising line.")})
    assert built.code == 0, built.said
    light, dark = ((built.site / f"_figures/chapters-one-line-{theme}.svg").read_text() for theme in ("light", "dark"))
    assert light.startswith("<?xml") and light != dark
    assert built.page("chapters/one").count('alt="A rising line."') == 2


def test_recorded_cells_are_taken_from_their_results(book, tmp_path):
    page = {"chapters/one": "# One\n\n" + cell("long", "x = 41 + 1\nprint('ran')", ":recorded: x") + "\n{n}`x`\n"}
    assert book(page, "-D", "record_cells=1").code == 0
    kept = tmp_path / "source/results/one.json"
    found = json.loads(kept.read_text())
    assert found["long"]["values"] == {"x": 42} and found["long"]["printed"] == "ran\n"
    found["long"]["values"]["x"] = 43
    kept.write_text(json.dumps(found))
    assert '<span class="number">43</span>' in book(page).page("chapters/one")  # it was not run
    page["chapters/one"] = page["chapters/one"].replace("41", "42")
    assert "make record" in book(page).said  # its code is not what was recorded


def test_results_are_kept_until_something_changes(book, tmp_path):
    page = {"chapters/one": "# One\n\n" + cell("a", "print('first')")}
    book(page)
    kept = tmp_path / "out/cells/chapters-one.json"
    kept.write_text(kept.read_text().replace("first", "kept"))
    assert "kept" in book(page, "-E").page("chapters/one")
    page["chapters/one"] = page["chapters/one"].replace("first", "second")
    assert "second" in book(page).page("chapters/one")


def test_a_trace_shows_every_step_without_scripts(book):
    steps = "steps = [{'says': f'step <{n}>', 'rows': [{'boxes': ['l', n], 'marked': [1]}]} for n in range(3)]"
    text = "# One\n\n" + cell("a", steps) + "\n```{trace} steps\n:title: Three steps\n```\n"
    built = book({"chapters/one": text})
    assert built.code == 0, built.said
    page = built.page("chapters/one")
    assert page.count("<li><p>step &lt;") == 3 and "<mark>2</mark>" in page
