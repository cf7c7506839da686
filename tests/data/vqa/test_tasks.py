"""Charts, digits and words."""

import itertools
import string

import numpy as np
import pytest

from nano_llama.core.errors import EnvironmentFault
from nano_llama.data.vqa import ShapesVQA, words
from nano_llama.data.vqa.charts import draw_chart
from nano_llama.data.vqa.digits import digit_task, enlarging
from nano_llama.data.vqa.questions import COLOURS, NUMBERS


class Recorder:
    """A canvas that keeps what is painted on it."""

    is_light = True

    def __init__(self):
        self.rectangles, self.coverages = [], []

    def rectangle(self, *args):
        self.rectangles.append(args)

    def cover(self, coverage, top, left, colour):
        self.coverages.append((coverage, top, left))


def test_charts():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scene, canvas = draw_chart(rng), Recorder()
        scene.paint(canvas, rng)
        bars = canvas.rectangles[:-2]  # the last two are the axes
        names = [min(COLOURS, key=lambda c: np.abs(np.subtract(COLOURS[c], bar[4])).sum()) for bar in bars]
        heights = [bar[3] - bar[1] for bar in bars]
        answers = {question.kind: question.answer for question in scene.questions}
        assert answers == {
            "bars": NUMBERS[len(bars)],
            "tallest": names[int(np.argmax(heights))],
            "shortest": names[int(np.argmin(heights))],
        }
        assert min(np.diff(sorted(heights))) >= 4 and len(set(names)) == len(names)
        assert all(left[2] < right[0] - 1 for left, right in itertools.pairwise(bars))
        assert (scene.group == "held_out_bars") == (list(COLOURS).index(answers["tallest"]) % 4 == np.argmax(heights))


def test_digits_are_those_of_their_labels():
    """Brought back to its size, a painted sample is the nearest to itself of all samples."""
    datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_digits()
    task, rng = digit_task(), np.random.default_rng(0)
    for _ in range(20):
        scene, canvas = task.draw(rng), Recorder()
        scene.paint(canvas, rng)
        [(coverage, top, left)] = canvas.coverages
        assert top + len(coverage) <= 64 and left + len(coverage) <= 64 and 0 <= coverage.min() <= coverage.max() <= 1
        back = np.linalg.pinv(enlarging(10, len(coverage)))
        small = (back @ coverage @ back.T)[1:-1, 1:-1]
        distances = np.abs(data.images / 16 - small).sum((1, 2))
        sample = int(np.argmin(distances))
        assert distances[sample] < 1e-3
        assert [question.answer for question in scene.questions] == [NUMBERS[data.target[sample]]]
        assert scene.group == ("seen" if sample % 5 else "held_out_samples")


def test_enlarging_is_linear_interpolation():
    assert enlarging(2, 4).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_allclose(enlarging(10, 37).sum(axis=1), 1, rtol=1e-6)


def test_words():
    pytest.importorskip("PIL")
    task, rng = words.word_task(), np.random.default_rng(0)
    seen, held_out, pages = [], [], []
    for _ in range(800):
        scene = task.draw(rng)
        if scene.questions[0].kind == "lines":
            pages.append(["".join(line.split(" ")) for line in scene.questions[0].answer.split(", ")])
            assert scene.group == "seen"
            continue
        word, spelling = (question.answer for question in scene.questions)
        assert 1 <= len(word) <= 6 and word.isalpha() and spelling.split(" ") == list(word)
        assert (scene.group == "held_out_words") == words.is_held_out_word(word)
        (seen if scene.group == "seen" else held_out).append(word)
    whole, singles = {word for word in seen if len(word) >= 4}, [word for word in seen if len(word) == 1]
    assert 200 < len(whole) < 300 and 80 < len(singles) < 160 and set(singles) == set(string.ascii_lowercase)
    assert 12 < len(held_out) < 45 and min(map(len, held_out)) >= 4 and not whole & set(held_out)
    assert 230 < len(pages) < 330 and {len(page) for page in pages} == {2, 3, 4}
    on_pages = {word for page in pages for word in page}
    assert {len(word) for word in on_pages} == {1, 2, 3, 4, 5} and not any(map(words.is_held_out_word, on_pages))


def test_only_training_has_pages():
    source = ShapesVQA(("word",))
    assert {question.kind for shown in source.pictures("test", count=60) for question in shown.questions} == {
        "word",
        "spelling",
    }
    assert "lines" in {question.kind for shown in source.pictures("train", count=60) for question in shown.questions}


def test_blind_letters():
    """Of 2,000 words, how many letters of the best word that fits no picture are right."""
    rng = np.random.default_rng(3)
    drawn = [words._word(rng, words.LENGTHS) for _ in range(2000)]
    places = [[word[place] for word in drawn if place < len(word)] for place in range(6)]
    best = sum(max(letters.count(letter) for letter in set(letters)) for letters in places)
    assert words.letter_chance() == pytest.approx(best / sum(map(len, drawn)), abs=0.012)


def test_words_are_legible_and_whole():
    """Each on a line of its own, none over another's or the picture's edge."""
    pytest.importorskip("PIL")
    task, rng, most = words.word_task(), np.random.default_rng(1), 0
    for _ in range(1500):
        scene, canvas, end = task.draw(rng), Recorder(), 0
        scene.paint(canvas, rng)
        lines = scene.questions[0].answer.split(", ")
        assert len(canvas.coverages) == len(lines)
        for line, (ink, top, left) in zip(lines, canvas.coverages, strict=True):
            h, w = ink.shape
            assert top > end and top + h < 64 and left > 0 and left + w < 64, line
            assert ink.max() > 0.7 and (h >= 6 or set(line) <= set("acemnorsuvwxz "))
            end, most = top + h, max(most, len(lines))
    assert most == 4


def test_fonts_differ():
    pytest.importorskip("PIL")
    inks = [words._ink(words._font(name, 16), "tegul") for name in words.FONTS]
    assert len({(ink.shape, ink.sum()) for ink in inks}) == len(inks)


@pytest.mark.parametrize(("package", "open_task"), [("sklearn", digit_task), ("PIL", words.word_task)])
def test_what_is_missing_is_named(monkeypatch, package, open_task):
    from nano_llama.core import errors

    def missing(name, *args):
        assert name.split(".")[0] == package
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(errors, "import_module", missing)
    with pytest.raises(EnvironmentFault, match=f"shapes-vqa needs the package '{package}'") as caught:
        open_task()
    assert "[vision]" in caught.value.hint
