"""What a run on pictures asks at its evaluations: accuracies, samples, and neither where time does not last."""

import pytest

from nano_llama.training.picture_answers import PictureAnswers
from nano_llama.training.pictures import picture_data
from nano_llama.training.settings import TrainSettings


@pytest.fixture(scope="module")
def dataset():
    settings = TrainSettings(
        data="shapes-vqa", init_from="nano_gpt", encoder="tiny", tasks="shape", context=96, max_steps=2
    )
    return picture_data(settings, None)


class Answers:
    """Says "red" to everything, and counts how often it is asked."""

    def __init__(self, tokenizer):
        self.red, self.asked = tokenizer.encode(" red"), 0

    def __call__(self, prompts, pixel_values, images, max_tokens):
        self.asked += 1
        return [self.red for _ in prompts]


def test_accuracies_and_samples(dataset, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    asked = PictureAnswers(dataset, Answers(dataset.tokenizer), shown=3)
    found = asked.ask(1.0, lambda: 0.0, lambda seconds: False)
    pictures = [dataset.course.held_back(number) for number in range(256)]
    colours = [one.answer == "red" for shown in pictures for one in shown.questions if one.kind == "colour"]
    assert found["colour"] == sum(colours) / len(colours) and found["shape"] == found["side"] == 0.0
    assert len(asked.draw()) == 3
    for number, (sample, shown) in enumerate(zip(asked.draw(), pictures, strict=False), start=1):
        assert sample.opening.startswith(f"{number}: {shown.questions[0].text}")
        assert sample.answer == ", ".join(one.answer for one in shown.questions)
        assert sample.text == ", ".join("red" for _ in shown.questions)
    asked.save_pictures(tmp_path / "samples.png")
    with image_module.open(tmp_path / "samples.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 3 * 64


def test_no_time(dataset):
    """It is told how long the last pictures took, and stops asking."""
    answers, told = Answers(dataset.tokenizer), []
    asked = PictureAnswers(dataset, answers, shown=3)

    def give_up(seconds):
        told.append(seconds)
        return len(told) == 3

    assert asked.ask(7.0, iter(range(0, 1000, 5)).__next__, give_up) == {}
    assert told == [7.0, 5, 5] and answers.asked == 2 and asked.draw() == []
