"""Accuracies: each answer as greedy decoding writes it alone; and the control's pictures."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.presets import model_preset  # noqa: E402
from nano_llama.core.vision import to_pixel_values  # noqa: E402
from nano_llama.core.vision.init import add_vision, init_params  # noqa: E402
from nano_llama.core.vision.presets import encoder_preset  # noqa: E402
from nano_llama.data.vqa import ShapesVQA  # noqa: E402
from nano_llama.data.vqa.answers import about, letters_right  # noqa: E402
from nano_llama.data.vqa.batches import PictureRows  # noqa: E402
from nano_llama.evaluation.vqa import evaluate_pictures, following  # noqa: E402
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


def test_the_control_shows_another_picture_of_the_same_task():
    source = ShapesVQA(("shape", "chart"))
    pictures = [source.picture("test", n) for n in range(9)]
    others = following(pictures)
    whose = [next(n for n, shown in enumerate(pictures) if shown.image is image) for image in others]
    assert sorted(whose) == list(range(9)) and all(n != other for n, other in enumerate(whose))
    assert all(pictures[n].task == pictures[other].task for n, other in enumerate(whose))


def test_shares_and_batches(model, rows):
    source = ShapesVQA(("shape", "count"))
    found = evaluate_pictures(model, rows, source, num_pictures=12, at_a_time=5)
    again = evaluate_pictures(model, rows, source, num_pictures=12, at_a_time=12)
    assert (found.accuracy, found.control, found.asked) == (again.accuracy, again.control, again.asked)
    asked = sum(len(about(source.picture("test", n))) for n in range(12))
    assert sum(found.asked.values()) == asked and found.accuracy.keys() == found.control.keys() == found.asked.keys()
    assert found.chance.keys() == found.asked.keys() and found.chance["colour"] == 1 / 8
    assert found.chance["held_out_pairs"] == 1 / 8 and found.chance["held_out_places"] == (1 / 8 + 1 / 2 + 1 / 2) / 3


def test_words_are_judged_by_letters_too(model, rows):
    """The letters of both questions about a word, and each letter as in what is written about that picture alone."""
    pytest.importorskip("PIL")
    pytest.importorskip("sklearn")
    source = ShapesVQA(("word", "digit"))
    pictures = [source.picture("test", n) for n in range(10)]
    words = [(shown, asked) for shown in pictures for asked in shown.questions if asked.kind in ("word", "spelling")]
    found = evaluate_pictures(model, rows, source, num_pictures=10, at_a_time=4)
    assert found.asked["letters"] == sum(len(asked.answer.replace(" ", "")) for _, asked in words)
    assert found.asked["letters"] == found.asked["word_letters"] + found.asked["spelling_letters"]
    assert found.asked["word"] + found.asked["spelling"] == found.asked["held_out_words"] == len(words)
    assert found.asked["digit"] == found.asked["held_out_samples"] and found.chance["held_out_words"] == 0
    wanted = []
    for shown, asked in words:
        text = rows.tokenizer.decode(greedy(model, rows, shown.image, asked.text, 16)).strip()
        wanted += letters_right(text, asked.answer)
    assert found.accuracy["letters"] == np.mean(wanted)


def greedy(model, rows, image, text, count):
    """Token after token, the whole text each time, up to the end."""
    ids = rows.image_ids + rows.tokenizer.encode(text)
    pixel_values = torch.from_numpy(to_pixel_values(image[None]))
    written = []
    for _ in range(count):
        with torch.no_grad():
            logits = model(torch.tensor([ids + written]), pixel_values)[0, -1]
        logits[model.config.image_token_id] = -torch.inf
        if int(logits.argmax()) in model.config.text_config.eos_token_ids:
            break
        written.append(int(logits.argmax()))
    return written
