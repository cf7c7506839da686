"""Pictures by number, their splits, and what does not need the extra."""

import subprocess
import sys

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.data.vqa import TASKS, ShapesVQA
from nano_llama.data.vqa.questions import QUESTIONS

DRAWN = ("shape", "relation", "count", "chart")  # those that need no package


def test_a_picture_depends_on_its_number_alone():
    one, other = ShapesVQA(DRAWN, seed=3), ShapesVQA(DRAWN, seed=3)
    there = [one.picture("train", index) for index in range(20)]
    back = [other.picture("train", index) for index in reversed(range(20))][::-1]
    for a, b in zip(there, back, strict=True):
        assert a.questions == b.questions and np.array_equal(a.image, b.image)
    assert [p.questions for p in one.pictures("train", 5, 3)] == [p.questions for p in there[5:8]]


def test_seeds_splits_and_numbers_differ():
    images = [
        ShapesVQA(("shape",), seed).picture(split, index).image.tobytes()
        for seed in (0, 1) for split in ("train", "test") for index in range(5)
    ]  # fmt: skip
    assert len(set(images)) == len(images)


def test_the_pictures_stay():
    """What is drawn changes with RULES_VERSION only: accuracies are of these pictures."""
    first = [picture.questions for picture in ShapesVQA(("shape",)).pictures("train", 0, 3)]
    assert [[asked.answer for asked in questions] for questions in first] == [
        ["cyan", "star", "right", "top"], ["pink", "diamond", "left", "top"], ["blue", "cross", "right", "bottom"],
    ]  # fmt: skip
    image = ShapesVQA(("shape",)).picture("train", 0).image
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    bright = np.argwhere(image[..., 1] > 128)  # cyan on black, in the upper right quarter
    row, column = bright.mean(axis=0)
    assert row < 32 < column


def test_training_has_what_is_seen_and_the_test_every_group():
    source = ShapesVQA(DRAWN)
    assert {picture.group for picture in source.pictures("train", 0, 200)} == {"seen"}
    shares = {}
    for picture in source.pictures("test", 0, 400):
        shares.setdefault(picture.task, []).append(picture.group)
    for task, groups in {
        "shape": {"seen", "held_out_pairs", "held_out_places"},
        "relation": {"seen", "held_out_relations"},
        "count": {"seen", "held_out_counts"},
        "chart": {"seen", "held_out_bars"},
    }.items():
        assert set(shares[task]) == groups
        assert all(shares[task].count(group) > 0.6 * len(shares[task]) / len(groups) for group in groups)


def test_digits_and_words_of_the_test_are_new():
    pytest.importorskip("PIL")
    pytest.importorskip("sklearn")
    source = ShapesVQA(("digit", "word"))
    assert {p.group for p in source.pictures("test", 0, 60)} == {"held_out_samples", "held_out_words"}
    written = [
        {p.questions[0].answer for p in source.pictures(split, 0, 200) if p.task == "word"}
        for split in ("train", "test")
    ]
    assert not written[0] & written[1]


def test_answers_spread_over_their_choices():
    """No answer is right so often that it pays to give it always."""
    answers = {}
    for picture in ShapesVQA(DRAWN).pictures("train", 0, 1500):
        for question in picture.questions:
            answers.setdefault(question.kind, []).append(question.answer)
    for kind, given in answers.items():
        choices = QUESTIONS[kind].choices
        assert set(given) == set(choices), kind
        most = max(given.count(choice) for choice in choices)
        limit = 0.4 if kind == "count_of" else 1.5 / len(choices)  # there are seldom many of one colour
        assert most / len(given) < limit, kind


def test_the_fingerprint_knows_tasks_and_seed():
    prints = [ShapesVQA(("shape",)), ShapesVQA(("count",)), ShapesVQA(("shape",), seed=1), ShapesVQA(("shape",))]
    digests = [source.fingerprint() for source in prints]
    assert digests[0] == digests[3] and len(set(digests)) == 3


@pytest.mark.parametrize(("tasks", "says"), [(("shape", "poem"), "unknown: 'poem'"), ((), "none")])
def test_unknown_tasks(tasks, says):
    with pytest.raises(UserError, match=says) as caught:
        ShapesVQA(tasks)
    assert ", ".join(TASKS) in caught.value.hint


def test_shapes_and_charts_need_no_package():
    code = f"""
import sys
sys.modules.update(dict.fromkeys(("PIL", "sklearn", "matplotlib", "torch")))
from nano_llama.data.vqa import ShapesVQA
assert len(list(ShapesVQA({DRAWN!r}).pictures("test", 0, 8))) == 8
"""
    subprocess.run([sys.executable, "-c", code], check=True)
