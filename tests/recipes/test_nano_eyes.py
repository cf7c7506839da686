"""The recipe, whole, for four steps: trained, stored in few bits, measured, its card written."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

pytest.importorskip("torch")
pytest.importorskip("PIL")

from helpers.slides import watch_figures
from nano_llama.data.vqa import QUESTIONS
from nano_llama.formats.shipped import shipped_model
from nano_llama.formats.vision_folder import open_vision_language, read_vision_language_config
from nano_llama.training.settings import TrainSettings
from nano_llama.vol1_numpy.vision import VisionLanguageModel

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    out = tmp_path_factory.mktemp("release")
    command = [sys.executable, RECIPES / "nano_eyes.py", "--smoke", "--out", out, "--note", "A trial."]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / "nano_eyes"


@pytest.mark.slow  # trains, and asks some hundred questions
def test_from_nothing_to_a_release(released):
    results, card = json.loads((released / "results.json").read_text()), (released / "README.md").read_text()
    assert sum(file.stat().st_size for file in released.iterdir()) <= 8 * 2**20
    weights = (released / "model.safetensors").read_bytes()
    assert results["sha256"] == hashlib.sha256(weights).hexdigest() and results["sha256"] in card
    assert results["steps"] == 4 and results["train_pictures"] == 16 and results["pictures"] == 24
    assert results["accuracy"].keys() == results["control"].keys() == results["as_trained"].keys()
    for name, share in results["accuracy"].items():
        assert name.replace("_", " ") in card or f"| {name}: " in card
        assert f"| {share:.1%} | {results['control'][name]:.1%} |" in card
    assert "A trial." in card
    for name in ("accuracy.png", "answers.png"):
        assert f"({name})" in card and (released / name).read_bytes().startswith(b"\x89PNG")
    assert all("val_accuracy" in row for row in results["curve"])


@pytest.mark.slow  # as above
def test_it_opens_everywhere(released):
    """In Volume 1 as well; its LLaMA's blocks are those that the engine computes with."""
    config, weights = open_vision_language(released)
    kinds = {weights.dtype_name(name) for name in weights}
    assert {"Q8_0", "Q4_1"} <= kinds and "F16" not in kinds
    model = VisionLanguageModel.from_pretrained(released)
    for name in weights:
        np.testing.assert_allclose(model.params[name], weights[name], rtol=1e-6)
    assert config.image_token_id == config.text_config.vocab_size - 1


def test_the_curve_is_fit_for_a_slide(tmp_path, monkeypatch):
    """Every kind of question has a line in a panel of its own; labels, whole ticks, legends that cover nothing."""
    monkeypatch.syspath_prepend(str(RECIPES))
    from nano_eyes_card import caption_of, draw_curve

    names = [*QUESTIONS, "letters", "word_letters", "spelling_letters", "lines_letters", "of_another_kind"]
    rows = [{"step": step, "val_accuracy": {name: step / (100 + place) for place, name in enumerate(names)}}
            for step in (4, 8, 12)]  # fmt: skip
    config = read_vision_language_config(shipped_model("nano_eyes"))
    settings = TrainSettings(
        data="shapes-vqa", init_from="nano_gpt", max_steps=12, batch_size=5, single_first=20, seed=7
    )
    lines, faults, savefig = [], watch_figures(monkeypatch), Figure.savefig

    def lines_and_save(figure, *arguments, **options):
        lines.extend(line for ax in figure.axes for line in ax.get_lines() if len(line.get_xdata()) == 3)
        return savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", lines_and_save)
    for name in ("accuracy.png", "accuracy.svg"):
        draw_curve(rows, config, settings, tmp_path / name)
    assert faults == [] and len(lines) == 2 * len(names)
    assert all(list(line.get_xdata()) == [20, 40, 60] for line in lines), "pictures, not steps"
    caption = caption_of(config, settings, "what it shows")
    for part in (
        "what it shows",
        "nano_eyes",
        f"{config.num_parameters:,}",
        "encoder: 3 layers of width 128",
        "seed 7",
    ):
        assert part in caption


@pytest.fixture(scope="module")
def shipped():
    folder = shipped_model("nano_eyes")
    if folder is None:
        pytest.skip("it has not been released yet")
    return folder


def test_the_card_is_made_from_the_results(shipped, monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    from nano_eyes_card import make_card

    results = json.loads((shipped / "results.json").read_text())
    assert (shipped / "README.md").read_text() == make_card(results), "run  python recipes/nano_eyes.py --card"
    assert results["sha256"] == hashlib.sha256((shipped / "model.safetensors").read_bytes()).hexdigest()
    assert sum(file.stat().st_size for file in shipped.iterdir()) <= 8 * 2**20


def test_its_accuracies_are_those_of_the_card(shipped):
    """On the first pictures of those that were measured: within four standard errors of each share."""
    from nano_llama.data.vqa import ShapesVQA
    from nano_llama.data.vqa.batches import PictureRows
    from nano_llama.evaluation.vqa import evaluate_pictures
    from nano_llama.tokenizer import Tokenizer
    from nano_llama.vol2_torch.vision import VisionLanguageModel as Torch

    results, model = json.loads((shipped / "results.json").read_text()), Torch.from_pretrained(shipped).eval()
    rows = PictureRows(Tokenizer.from_pretrained(shipped), model.config.image_seq_len)
    found = evaluate_pictures(model, rows, ShapesVQA(tuple(results["settings"]["tasks"].split(","))), 150)
    for name, count in found.asked.items():
        for part, share in (("accuracy", found.accuracy[name]), ("control", found.control[name])):
            expected = results[part][name]
            error = np.sqrt(max(expected * (1 - expected), 0.02) / count)
            assert abs(share - expected) < 4 * error, f"{part} of {name}: {share:.3f}, and {expected:.3f} on the card"
