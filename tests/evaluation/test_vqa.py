"""Answers about pictures: right exactly where greedy decoding writes them; and the control's pictures."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.presets import model_preset  # noqa: E402
from nano_llama.core.vision import to_pixel_values  # noqa: E402
from nano_llama.core.vision.init import add_vision, init_params  # noqa: E402
from nano_llama.core.vision.presets import encoder_preset  # noqa: E402
from nano_llama.data.vqa import Question, ShapesVQA  # noqa: E402
from nano_llama.data.vqa.batches import PictureRows  # noqa: E402
from nano_llama.evaluation.vqa import (  # noqa: E402
    about,
    answers_right,
    evaluate_pictures,
    following,
    letters_right,
    names_of,
    write_answers,
)
from nano_llama.tokenizer import Tokenizer  # noqa: E402
from nano_llama.tokenizer.image_token import with_image_token  # noqa: E402
from nano_llama.vol2_torch.vision import VisionLanguageModel  # noqa: E402


@pytest.fixture(scope="module")
def rows():
    return PictureRows(with_image_token(Tokenizer.from_pretrained("nano_gpt")), image_seq_len=4)


@pytest.fixture(scope="module")
def model(rows):
    text = model_preset("tiny", vocab_size=rows.tokenizer.vocab_size - 1, initializer_range=0.5)
    config, params = add_vision(text, init_params(text, seed=2), encoder_preset("tiny"), seed=3)
    return VisionLanguageModel.init(config).load_params(params).eval()


def greedy(model, rows, image, text, count):
    """Token after token, the whole text each time."""
    ids = rows.image_ids + rows.tokenizer.encode(text)
    pixel_values = torch.from_numpy(to_pixel_values(image[None]))
    written = []
    for _ in range(count):
        with torch.no_grad():
            written.append(int(model(torch.tensor([ids + written]), pixel_values)[0, -1].argmax()))
    return written


def test_right_is_what_greedy_decoding_writes(model, rows):
    """The model's own greedy answers count as right, and the same with another word or without the end do not."""
    source = ShapesVQA(("shape",))
    pictures = [source.picture("test", n) for n in range(4)]
    images = np.stack([shown.image for shown in pictures])
    wanted, found = [], []
    for shown in pictures:
        written = greedy(model, rows, shown.image, shown.questions[0].text, 3)
        for answer in (written, [*written[:2], (written[2] + 1) % 4000]):
            wanted.append(answer == written)
            found.append(answer)

    class Given(PictureRows):
        """Answers that are ids already."""

        def question(self, question):
            return self.tokenizer.encode(question.text), [int(number) for number in question.answer.split()]

    given = Given(rows.tokenizer, rows.image_seq_len)
    texts = [shown.questions[0].text for shown in pictures]
    asked = [
        [Question("colour", text, " ".join(map(str, found[2 * n + k]))) for k in range(2)]
        for n, text in enumerate(texts)
    ]
    assert answers_right(model, given, images, asked) == wanted


def test_the_control_shows_another_picture_of_the_same_task():
    source = ShapesVQA(("shape", "chart"))
    pictures = [source.picture("test", n) for n in range(9)]
    others = following(pictures)
    whose = [next(n for n, shown in enumerate(pictures) if shown.image is image) for image in others]
    assert sorted(whose) == list(range(9)) and all(n != other for n, other in enumerate(whose))
    assert all(pictures[n].task == pictures[other].task for n, other in enumerate(whose))


def test_shares_and_batches(model, rows):
    source = ShapesVQA(("shape", "count"))
    found = evaluate_pictures(model, rows, source, num_pictures=12, batch_size=5)
    again = evaluate_pictures(model, rows, source, num_pictures=12, batch_size=12)
    assert (found.accuracy, found.control, found.asked) == (again.accuracy, again.control, again.asked)
    asked = sum(len(about(source.picture("test", n))) for n in range(12))
    assert sum(found.asked.values()) == asked and found.accuracy.keys() == found.control.keys() == found.asked.keys()
    assert found.chance.keys() == found.asked.keys() and found.chance["colour"] == 1 / 8
    assert found.chance["held_out_pairs"] == 1 / 8 and found.chance["held_out_places"] == (1 / 8 + 1 / 2 + 1 / 2) / 3


def test_letters_stand_in_their_places():
    assert letters_right("b a n e", "bane") == [True] * 4
    assert letters_right("bene", "b a n e") == [True, False, True, True]
    assert letters_right("ba", "bane") == [True, True, False, False]
    assert letters_right("abane", "bane") == [False] * 4, "what is shifted is wrong"
    assert letters_right("banes", "bane") == [True] * 4 and letters_right("", "bane") == [False] * 4


def test_words_are_judged_by_letters_too(model, rows):
    """The letters of both questions about a word, and each letter as in what is written about that picture alone."""
    pytest.importorskip("PIL")
    pytest.importorskip("sklearn")
    source = ShapesVQA(("word", "digit"))
    pictures = [source.picture("test", n) for n in range(10)]
    words = [(shown, asked) for shown in pictures for asked in shown.questions if asked.kind in ("word", "spelling")]
    found = evaluate_pictures(model, rows, source, num_pictures=10, batch_size=4)
    assert found.asked["letters"] == sum(len(asked.answer.replace(" ", "")) for _, asked in words)
    assert found.asked["letters"] == found.asked["word_letters"] + found.asked["spelling_letters"]
    assert found.asked["word"] + found.asked["spelling"] == found.asked["held_out_words"] == len(words)
    assert found.asked["digit"] == found.asked["held_out_samples"] and found.chance["held_out_words"] == 0
    written = write_answers(model, rows, np.stack([shown.image for shown, _ in words]), [asked for _, asked in words])
    wanted = [
        right for text, (_, asked) in zip(written, words, strict=True) for right in letters_right(text, asked.answer)
    ]
    assert found.accuracy["letters"] == np.mean(wanted)


def test_held_out_pictures_count_for_their_group():
    source = ShapesVQA(("shape",))
    for shown in (source.picture("test", n) for n in range(20)):
        for asked in shown.questions:
            assert names_of(shown, asked) == [asked.kind if shown.group == "seen" else shown.group]
