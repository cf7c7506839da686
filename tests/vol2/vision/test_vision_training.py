"""Training on pictures: resumed runs end with the same bits; what is frozen stays; the rates differ."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers.training import stop_before  # noqa: E402
from nano_llama.core.vision.init import add_vision  # noqa: E402
from nano_llama.core.vision.names import is_language_model  # noqa: E402
from nano_llama.core.vision.presets import encoder_preset  # noqa: E402
from nano_llama.data.vqa.batches import PictureBatches  # noqa: E402
from nano_llama.formats import open_weights, save_hf  # noqa: E402
from nano_llama.formats.vision_folder import open_vision_language  # noqa: E402
from nano_llama.tokenizer import Tokenizer  # noqa: E402
from nano_llama.training.metrics import best_of, read_metrics  # noqa: E402
from nano_llama.training.run_summary import summarize  # noqa: E402
from nano_llama.training.settings import TrainSettings  # noqa: E402
from nano_llama.vol2_torch.loss import loss_sum  # noqa: E402
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402
from nano_llama.vol2_torch.vision import VisionLanguageModel  # noqa: E402


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A LLaMA of one layer with nano_gpt's tokenizer."""
    from nano_llama.core.init import init_params
    from nano_llama.core.presets import model_preset

    tokenizer = Tokenizer.from_pretrained("nano_gpt")
    config = model_preset("tiny", vocab_size=tokenizer.vocab_size, max_position_embeddings=96)
    folder = tmp_path_factory.mktemp("start") / "llama"
    save_hf(folder, config, init_params(config, seed=1), tokenizer)
    return folder


@pytest.fixture
def settings(start):
    return TrainSettings(
        data="shapes-vqa", init_from=str(start), encoder="tiny", tasks="shape", context=96, batch_size=3, max_steps=6,
        optimizer="muon", lr=3e-3, evaluations=2, samples=0, log_every=1, num_threads=1, precision="fp32",
    )  # fmt: skip


def saved(folder):
    config, weights = open_vision_language(folder)
    with weights:
        return config, {name: np.array(weights[name]) for name in weights}


def same(mine, other):
    assert mine.keys() == other.keys()
    return [name for name in mine if mine[name].tobytes() != other[name].tobytes()]


def test_stopped_and_resumed(settings, tmp_path):
    Trainer(settings, tmp_path / "whole").fit()
    _, expected = saved(tmp_path / "whole")

    stop_before(Trainer(settings, tmp_path / "run"), 4)
    Trainer(settings, tmp_path / "run", resume=True).fit()
    assert same(saved(tmp_path / "run")[1], expected) == []
    losses = [[(row["step"], row["train_loss"]) for row in read_metrics(tmp_path / name / "metrics.jsonl")]
              for name in ("whole", "run")]  # fmt: skip
    assert losses[0] == losses[1] and len(losses[0]) == 6
    summary, _ = summarize(tmp_path / "whole")
    assert (summary.step, summary.parameters) == (6, saved(tmp_path / "whole")[0].num_parameters)


def test_evaluations_while_single_shapes_are_learned_choose_no_model(settings, tmp_path):
    """Their losses are of all tasks; the model is the last one's, and the first that counts comes after them."""
    result = Trainer(settings.replace(single_first=15, evaluations=6, tasks="shape,count"), tmp_path / "early").fit()
    rows = [row for row in read_metrics(tmp_path / "early" / "metrics.jsonl") if "val_loss" in row]
    assert [row.get("val_early", False) for row in rows] == [True] * 5 + [False], (
        "the sixth batch is the first of all tasks"
    )
    assert result.model_step == 6 and best_of(rows)["step"] == 6
    assert all(row["val_accuracy"].keys() == {"colour", "shape", "side", "height", "count", "count_of"} for row in rows)
    assert result.to_json()["val_accuracy"] == pytest.approx(rows[-1]["val_accuracy"], abs=1e-4)
    assert best_of(rows[:3]) == rows[2], "of early ones alone the last"


def test_what_is_frozen_stays(settings, start, tmp_path):
    Trainer(settings.replace(language_model_lr=0.0), tmp_path / "run").fit()
    _, trained = saved(tmp_path / "run")
    with open_weights(start) as llama:
        _, before = add_vision(llama.config, llama, encoder_preset("tiny"), seed=0)
    changed = {name for name in before if not np.array_equal(before[name], trained[name])}
    assert changed == {name for name in before if not is_language_model(name)}
    checkpoint = next((tmp_path / "run" / "checkpoints").iterdir())
    assert same(saved(checkpoint)[1], trained) == [], "a checkpoint is a whole model as well"


def test_the_language_model_follows_at_its_own_rate(settings, tmp_path):
    """AdamW's first step changes each number by the learning rate, unless its gradient is next to nothing."""
    trainer = Trainer(settings.replace(optimizer="adamw", weight_decay=0.0, clip=0.0), tmp_path / "run")
    parameters = trainer.backend.parameters
    before = {name: value.detach().clone() for name, value in parameters.items()}
    trainer.backend.gradient([trainer.batches.next()])
    trainer.backend.update(1e-3)
    for is_text, expected in ((True, 0.1e-3), (False, 1e-3)):
        part = [name for name in parameters if is_language_model(name) == is_text]
        changes = [(parameters[name] - before[name]).abs().max().item() for name in part]
        assert max(changes) == pytest.approx(expected, rel=0.01)


def test_the_loss_is_that_of_the_answers(settings, tmp_path):
    """Against one picture after the other, in a row of its own, from the model's own logits."""
    trainer = Trainer(settings, tmp_path / "run")
    model, batches = trainer.backend.model, trainer.batches
    assert isinstance(model, VisionLanguageModel) and isinstance(batches, PictureBatches)
    tokens, targets, documents, pixel_values = batches.at(0)
    assert documents.max() > 0, "several share a row"
    images, nats = iter(torch.from_numpy(pixel_values)), 0.0
    for row in range(len(tokens)):
        for number in range(documents[row].max() + 1):
            own = documents[row] == number
            with torch.no_grad():
                logits = model(torch.from_numpy(tokens[row, own])[None], next(images)[None])
            nats += torch.nn.functional.cross_entropy(
                logits[0], torch.from_numpy(targets[row, own]), reduction="sum"
            ).item()
    assert next(images, None) is None
    assert trainer.backend.eval_loss_sum(*batches.at(0)) == pytest.approx(nats, rel=1e-5)
    tokens_, targets_, documents_, images_ = map(torch.from_numpy, (tokens, targets, documents, pixel_values))
    with torch.no_grad():
        packed = loss_sum(model, tokens_, targets_, documents=documents_, images=(images_,))
    assert packed.item() == pytest.approx(nats, rel=1e-5)
