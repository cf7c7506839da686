"""What answers count for: whole texts, letters in their places, and the groups of held-out combinations."""

import numpy as np

from nano_llama.data.vqa import Picture, Question, ShapesVQA
from nano_llama.data.vqa.answers import about, judged, letters_right, names_of, shares, written_answers
from nano_llama.data.vqa.batches import PictureRows
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.image_token import with_image_token


def test_letters_stand_in_their_places():
    assert letters_right("b a n e", "bane") == [True] * 4
    assert letters_right("bene", "b a n e") == [True, False, True, True]
    assert letters_right("ba", "bane") == [True, True, False, False]
    assert letters_right("abane", "bane") == [False] * 4, "what is shifted is wrong"
    assert letters_right("banes", "bane") == [True] * 4 and letters_right("", "bane") == [False] * 4


def test_held_out_pictures_count_for_their_group():
    source = ShapesVQA(("shape",))
    for shown in (source.picture("test", n) for n in range(20)):
        for asked in about(shown):
            assert names_of(shown, asked) == [asked.kind if shown.group == "seen" else shown.group]


def test_words_count_whole_and_by_letters():
    word = Picture(np.zeros((64, 64, 3), np.uint8), "word", "held_out_words",
                   (Question("word", "?", "bane"), Question("spelling", "?", "b a n e")))  # fmt: skip
    seen = Picture(word.image, "shape", "seen", (Question("colour", "?", "red"),))
    found = judged([word, seen], [word.questions, seen.questions], [["bame", "b a n e"], ["red ring"]])
    assert shares(found) == {
        "colour": 0.0, "word": 0.0, "spelling": 1.0, "held_out_words": 0.5, "letters": 7 / 8,
        "word_letters": 3 / 4, "spelling_letters": 1.0,
    }  # fmt: skip


def test_each_question_is_asked_alone():
    """The function that answers is given every question after its own image; its texts come back in their places."""
    rows = PictureRows(with_image_token(Tokenizer.from_pretrained("nano_gpt")), image_seq_len=4)
    pictures = [ShapesVQA(("shape",)).picture("test", n) for n in range(3)]
    questions = [about(shown) for shown in pictures]

    def answer(prompts, pixel_values, images, max_tokens):
        assert pixel_values.shape == (3, 3, 64, 64) and len(prompts) == len(images) == sum(map(len, questions))
        assert all(prompt[:4] == rows.image_ids for prompt in prompts)
        return [rows.tokenizer.encode(f" {number} {rows.tokenizer.decode(prompt[4:])}")
                for number, prompt in zip(images, prompts, strict=True)]  # fmt: skip

    written = written_answers(answer, rows, np.stack([shown.image for shown in pictures]), questions)
    assert written == [[f"{number} {asked.text}" for asked in of] for number, of in enumerate(questions)]
