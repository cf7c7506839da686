"""The questions: their wording is fixed."""

import pytest

from nano_llama.data.vqa.questions import QUESTIONS, ask


def test_the_wording_stays():
    """Trained models know these words: another wording is another data set (raise source.py's RULES_VERSION)."""
    assert {kind: text for kind, (text, _) in QUESTIONS.items()} == {
        "colour": "What colour is the shape?",
        "shape": "What shape is it?",
        "side": "Which side is the shape on?",
        "height": "Is the shape at the top or at the bottom?",
        "left_right": "Is the {shape} left or right of the {other}?",
        "above_below": "Is the {shape} above or below the {other}?",
        "colour_of": "What colour is the {shape}?",
        "count": "How many shapes are there?",
        "count_of": "How many {colour} shapes are there?",
        "digit": "Which digit is it?",
        "word": "What word is written?",
        "spelling": "How is the word spelled?",
        "lines": "How are the words spelled?",
        "bars": "How many bars are there?",
        "tallest": "What colour is the tallest bar?",
        "shortest": "What colour is the shortest bar?",
    }


def test_blanks_are_filled():
    assert ask("left_right", "left", shape="star", other="moon").text == "Is the star left or right of the moon?"


def test_an_answer_that_no_question_has():
    with pytest.raises(AssertionError, match="'mauve' does not answer"):
        ask("colour", "mauve")
