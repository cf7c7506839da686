"""What nano_eyes's card says, measured: accuracies as it is stored and as it was trained; and the picture of answers.

Tests: tests/recipes/test_nano_eyes.py.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.data.vqa import Picture, Question, ShapesVQA, contact_sheet
from nano_llama.data.vqa.answers import about, written_answers
from nano_llama.data.vqa.batches import PictureRows
from nano_llama.evaluation.vqa import evaluate_pictures
from nano_llama.formats.vision_config import vision_language_to_hf
from nano_llama.formats.vision_folder import read_vision_language_config
from nano_llama.tokenizer import Tokenizer
from nano_llama.training.metrics import read_metrics
from nano_llama.training.saved_settings import load_settings
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.precision import resolve_precision
from nano_llama.vol2_torch.vision import VisionLanguageModel
from nano_llama.vol2_torch.vision.generate import answer_in

SHOWN = 10  # right answers on the picture of answers, and as many wrong ones


def measure(folder: Path, run: Path, pictures: int) -> dict[str, Any]:
    """`folder`: the release; `run`: what it was made from."""
    settings, rows = load_settings(run / "train.json"), read_metrics(run / "metrics.jsonl")
    source, config = ShapesVQA(settings.task_names), read_vision_language_config(folder)
    released, trained = (evaluate_pictures(*_loaded(path), source, pictures) for path in (folder, run))
    curve = [{key: row[key] for key in ("step", "elapsed_s", "val_loss", "val_accuracy") if key in row}
             for row in rows if "val_loss" in row]  # fmt: skip
    last = rows[-1]
    return {
        **released.to_json(), "as_trained": trained.accuracy, "parameters": config.num_parameters,
        "config": vision_language_to_hf(config), "image_seq_len": config.image_seq_len,
        "settings": settings.to_json(), "steps": last["step"], "tokens": last["tokens"],
        "train_pictures": last["step"] * settings.batch_size * settings.accumulate,
        "elapsed_s": last["elapsed_s"], "curve": curve,
    }  # fmt: skip


def save_answers(folder: Path, settings: TrainSettings, path: Path, pictures: int, caption: str) -> None:
    """The first pictures of the test split with a right answer, and the first with a wrong one, beside the right one.

    One question a picture: the first that is answered wrongly, or none is. Not selected otherwise.
    """
    model, rows = _loaded(folder)
    source = ShapesVQA(settings.task_names)
    answer = partial(answer_in, resolve_precision("auto", model.device, model.config.text_config.hidden_size), model)
    shown = list(source.pictures("test", count=min(pictures, 200)))
    questions = [about(picture) for picture in shown]
    written = written_answers(answer, rows, np.stack([picture.image for picture in shown]), questions)
    right, wrong = list[Picture](), list[Picture]()
    for picture, asked, texts in zip(shown, questions, written, strict=True):
        pairs = list(zip(asked, texts, strict=True))
        missed = next(((question, text) for question, text in pairs if text != question.answer), None)
        question, text = missed or pairs[0]
        said = f"{text[:16]} (not {question.answer})" if missed else text
        one = replace(picture, questions=(Question(question.kind, question.text, said),))
        (wrong if missed else right).append(one)
    with path.open("wb") as file:
        contact_sheet([*right[:SHOWN], *wrong[:SHOWN]], caption=caption).save(file, format="PNG", optimize=True)


def _loaded(path: Path) -> tuple[VisionLanguageModel, PictureRows]:
    model = VisionLanguageModel.from_pretrained(path).eval()
    return model, PictureRows(Tokenizer.from_pretrained(path), model.config.image_seq_len)
