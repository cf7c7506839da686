"""Rows and batches of pictures: what is learned, where images stand, and the same batches from any position on."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.core.vision import to_pixel_values
from nano_llama.data.vqa import ShapesVQA
from nano_llama.data.vqa.batches import EPOCH, Course, PictureBatches, PictureRows
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.image_token import image_token_id, with_image_token


@pytest.fixture(scope="module")
def rows():
    return PictureRows(with_image_token(Tokenizer.from_pretrained("nano_gpt")), image_seq_len=4)


def test_a_row_reads_as_questions_with_answers(rows):
    picture = ShapesVQA(("shape",)).picture("train", 3)
    tokens, targets = rows.row(picture.questions)
    tokenizer, image = rows.tokenizer, image_token_id(rows.tokenizer)
    assert tokens[:4].tolist() == [image] * 4 and image not in tokens[4:]
    end = tokenizer.decode([tokenizer.eos_id], skip_special=False)
    whole = "".join(f"{asked.text} {asked.answer}{end}" for asked in picture.questions)
    assert tokenizer.decode(tokens[4:].tolist(), skip_special=False) == whole.removesuffix(end)
    learned = targets != IGNORE_INDEX
    answers = "".join(f" {asked.answer}{end}" for asked in picture.questions)
    assert tokenizer.decode(targets[learned].tolist(), skip_special=False) == answers
    np.testing.assert_array_equal(targets[:-1][learned[:-1]], tokens[1:][learned[:-1]])


def test_a_batch_holds_every_picture_once_and_marks_padding(rows):
    source = ShapesVQA(("shape", "count"))
    batches = PictureBatches(lambda n: source.picture("train", n), rows, batch_size=7, context=96, seed=5)
    tokens, targets, documents, pixel_values = batches.at(2)
    assert tokens.shape == targets.shape == documents.shape and tokens.shape[1] in (64, 96) and len(tokens) % 2 == 0
    expected = {}
    for number in range(14, 21):
        shown = source.picture("train", number)
        order = np.random.default_rng((5, number)).permutation(len(shown.questions))
        row = rows.row([shown.questions[place] for place in order])
        expected[to_pixel_values(shown.image[None]).tobytes()] = [part.tolist() for part in row]
    found = [
        [part[row][documents[row] == number].tolist() for part in (tokens, targets)]
        for row in range(len(tokens))
        for number in range(documents[row].max() + 1)
    ]
    assert found == [expected.pop(image.tobytes()) for image in pixel_values] and not expected
    assert (targets[documents == -1] == IGNORE_INDEX).all()
    for row in documents:  # one after the other, then padding
        assert (np.diff(np.where(row == -1, 99, row)) >= 0).all()
    batches.seek(2)
    for mine, again in zip((tokens, targets, documents, pixel_values), batches.next(), strict=True):
        np.testing.assert_array_equal(mine, again)


def test_each_question_is_often_the_first(rows):
    source, first = ShapesVQA(("shape",)), set()
    batches = PictureBatches(lambda n: source.picture("train", n), rows, batch_size=32, context=96)
    for row in batches.at(0)[0]:
        first.add(tuple(row[4:7]))
    assert len(first) == 4


def test_a_row_that_does_not_fit(rows):
    batches = PictureBatches(Course(("shape",), 0), rows, batch_size=2, context=16)
    with pytest.raises(UserError, match="in a context of 16") as caught:
        batches.at(0)
    fitting = int(caught.value.hint.split()[-1].rstrip("."))
    assert PictureBatches(Course(("shape",), 0), rows, batch_size=2, context=fitting).at(0)


def test_single_shapes_come_first():
    course = Course(("count", "chart"), single_first=4, seed=1)
    assert {course(n).task for n in range(4)} == {"shape"}
    assert {course(n).task for n in range(4, 12)} <= {"count", "chart"}
    source = ShapesVQA(("count", "chart"), seed=1)
    np.testing.assert_array_equal(course(5).image, source.picture("train", 5).image)
    held_back = course.held_back(2)
    np.testing.assert_array_equal(held_back.image, source.picture("train", EPOCH + 2).image)
    assert held_back.group == "seen"
