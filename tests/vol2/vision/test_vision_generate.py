"""Answers of many images at once: each as token after token alone writes it."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers.vision_cases import IMAGE  # noqa: E402
from helpers.vision_models import naive, picture, save_tiny  # noqa: E402
from nano_llama.core.vision import to_pixel_values  # noqa: E402
from nano_llama.vol2_torch.vision import generate  # noqa: E402
from nano_llama.vol2_torch.vision.generate import greedy_answers  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "m")


def test_as_alone(model):
    asked = [[IMAGE, 1, 2], [IMAGE, 3, 4, 5], [6, IMAGE, 2], [IMAGE, 1, 2]]  # of two lengths
    images = [picture(seed) for seed in range(4)]
    places = [[same for i in ids for same in [i] * (model.config.image_seq_len if i == IMAGE else 1)] for ids in asked]
    found = greedy_answers(model, places, torch.from_numpy(to_pixel_values(np.stack(images))), range(4), 6)
    ends = model.config.text_config.eos_token_ids
    for ids, image, answer in zip(asked, images, found, strict=True):
        alone = naive(model, ids, [image], 6)
        length = next((place for place, token in enumerate(alone) if token in ends), 6)
        assert answer == alone[:length]
    assert len({tuple(answer) for answer in found}) > 1 and not any(IMAGE in answer for answer in found)


def test_an_answer_ends(model):
    """Where a token ends texts, an answer is cut there, and the others go on."""
    places = [[IMAGE] * model.config.image_seq_len + [number] for number in range(1, 5)]
    pixel_values = torch.from_numpy(to_pixel_values(np.stack([picture(seed) for seed in range(4)])))
    whole = greedy_answers(model, places, pixel_values, range(4), 5)
    end = whole[0][2]
    config = model.config
    model.config = config.replace(text_config=config.text_config.replace(eos_token_id=end))
    try:
        found = greedy_answers(model, places, pixel_values, range(4), 5)
    finally:
        model.config = config
    assert found == [answer[: answer.index(end)] if end in answer else answer for answer in whole]


def test_an_image_serves_all_its_questions(model, monkeypatch):
    """Encoded once, in any order, and in parts of any size."""
    places = [[IMAGE] * model.config.image_seq_len + [number] for number in (1, 2, 3, 4, 5)]
    pixel_values = torch.from_numpy(to_pixel_values(np.stack([picture(seed) for seed in range(3)])))
    images = [2, 0, 0, 1, 2]
    expected = greedy_answers(model, places, pixel_values[images], range(5), 4)
    assert greedy_answers(model, places, pixel_values, images, 4) == expected
    monkeypatch.setattr(generate, "BATCH_SIZE", 2)
    assert greedy_answers(model, places, pixel_values, images, 4) == expected
