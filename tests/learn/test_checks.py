"""What a check.py is made of: comparison of results, the learner's tests as exercises, memory."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from nano_llama.learn import checks
from nano_llama.learn.checks import Rejected, called, compare, memory_case, rounded, same, shown, shown_apart


@pytest.mark.parametrize(
    ("found", "expected", "message"),
    [
        ({"a": 1.0}, {"a": 1.0 + 1e-12}, None),
        ({"a": 1.0}, {"a": 1.001}, "a is wrong."),
        ({"a": 1}, {"a": 1.0}, None),
        ({"a": "1"}, {"a": 1.0}, "a is of type str; expected numbers."),
        ({"a": True}, {"a": "x"}, "a is of type bool; expected str."),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a is wrong."),
        ({"a": np.int64(3)}, {"a": 3}, None),
        ({"a": 3.0}, {"a": 3}, "a is of type float; expected int."),
        ({"a": Counter(a=np.int64(2), b=1)}, {"a": {"a": 2, "b": 1}}, None),
        ({"a": [np.int32(1)]}, {"a": [1]}, None),
        ({"a": np.zeros(2)}, {"a": np.zeros(3)}, "a has shape (2,); expected (3,)."),
        ({"a": np.zeros(2, "f4")}, {"a": np.zeros(2)}, "a is float32; expected float64, as the inputs are."),
        ({"a": np.array([np.nan, 1])}, {"a": np.array([np.nan, 1])}, None),
        ({"a": np.array([np.nan, 1])}, {"a": np.array([0.0, 1])}, "a is wrong."),
        ({"a": np.array([np.inf])}, {"a": np.array([-np.inf])}, "a is wrong."),
        ({}, {"a": 1.0}, "It returned 0 results; expected 1: a."),
    ],
)
def test_compare(found, expected, message):
    difference = compare(found, expected, 1e-9)
    assert (difference and difference.message) == message


def test_the_worst_index_is_named():
    difference = compare({"a": np.array([[1.0, 2], [3, 9]])}, {"a": np.array([[1.0, 2.5], [3, 4]])}, 1e-9)
    assert (difference.index, difference.expected, difference.found) == ((1, 1), 4.0, 9.0)


def test_a_call_gets_copies_and_may_not_change_them():
    x = [1, [2]]
    module = SimpleNamespace(good=lambda x: len(x), bad=lambda x: x[1].append(3) or 1, none=lambda x: None)
    assert called(module, "good", {"x": x}) == 2
    for name, says in (("bad", "changes its argument 'x'"), ("none", "returned None"), ("absent", "no function")):
        with pytest.raises(Rejected, match=says):
            called(module, name, {"x": x})
    assert x == [1, [2]]


def test_a_test_of_the_learner_is_judged_by_what_it_lets_through():
    def sound(x):
        return 2 * x

    def faulty(x):
        return 3 * x

    def judged(test):
        """(stage, sentence or None) of each case."""
        module = SimpleNamespace(test=test)
        found = checks.test_cases("test", {"sound": (sound,)}, {"three": (faulty,)})
        return [(case.stage, case.holds(case.run(module))) for case in found]

    def good(f):
        assert f(2) == 4

    def strict(f):
        assert f(2) == 5, "five"

    def lax(f):
        assert f

    assert judged(good) == [("smallest", None), ("random", None)]
    stage, says = judged(strict)[0]
    assert stage == "smallest"
    assert says.startswith("Your test fails on sound code: sound. It says: five")
    assert judged(lax)[1] == ("random", "Your test passes on faulty code: three.")


def test_memory_is_counted():
    case = memory_case("", lambda module: None, lambda module, nothing: module.f(), 2, 8000, "arrays")
    assert case.holds(case.run(SimpleNamespace(f=lambda: np.zeros(2000)))) is None
    assert "4.0 arrays" in case.holds(case.run(SimpleNamespace(f=lambda: np.zeros(4000))))


def test_small_examples_have_one_decimal_and_no_zeros():
    value = rounded({"x": np.array([0.04, -1.26]), "n": 3})
    assert value["n"] == 3
    np.testing.assert_array_equal(value["x"], [0.1, -1.3])


def test_values_are_shown_as_they_would_be_typed():
    assert shown(np.array([[0.1, -2.0]])) == "[[0.1, -2.]]"
    assert shown(np.zeros((5, 6))) == "array of shape (5, 6), float64"
    assert shown("aé") == "'aé'"
    assert shown([{"w": np.array([0.5])}, 1.0]) == "[{'w': [0.5]}, 1]"
    assert shown((np.array([0.5]), np.array([1.0]))) == "([0.5], [1.])"
    assert shown_apart(1.5, 2.5) == ("1.5", "2.5")
    assert shown_apart(0.1 + 0.2, 0.3) == ("0.30000000000000004", "0.3")


def test_same_is_strict():
    assert same([1, {"a": np.ones(2)}], [1, {"a": np.ones(2)}])
    assert not same([1], (1,))
    assert not same(np.ones(2), np.ones(2, "f4"))
