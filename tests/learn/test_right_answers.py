"""Right answers that are written in another way than ours pass: what is checked is what was asked, not how."""

import pytest

from helpers import right_answers, right_answers_later
from nano_llama.learn import exercise, exercises

HEADER = """
import math
from collections import Counter, defaultdict
from itertools import groupby

import numpy as np

"""

ANSWERS = right_answers.ANSWERS | right_answers_later.ANSWERS


def test_every_exercise_has_another_answer():
    assert sorted(exercise(name).name for name in ANSWERS) == [one.name for one in exercises()]


@pytest.mark.parametrize("name", ANSWERS)
def test_it_passes(checker, tmp_path, name):
    file = tmp_path / "answer.py"
    file.write_text(HEADER + ANSWERS[name])
    verdict = checker.check(exercise(name), file, seed=3)
    assert verdict.passed, (verdict.stage, verdict.case, verdict.message, verdict.says, verdict.where)
