"""Volume 1's trainer: the same run again to the bit, also across a stop; accumulation; refusals; it learns."""

import json

import numpy as np
import pytest

from helpers.training import stop_before
from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.formats import open_weights
from nano_llama.training import TrainSettings
from nano_llama.training.evaluation import evaluate_split
from nano_llama.vol1_numpy import Llama
from nano_llama.vol1_numpy.optim import SGD
from nano_llama.vol1_numpy.trainer import Trainer, gradient

TINY = LlamaConfig(
    vocab_size=29,
    hidden_size=16,
    intermediate_size=36,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=16,
)


def draw(B, T=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 29, (B, T)), rng.integers(0, 29, (B, T))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A small language of its own: 60 words, drawn with memory, so that there is something to learn."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 4)) for _ in range(60)]
    places, place = [], 0
    for _ in range(6000):
        place = (place * 7 + int(rng.integers(0, 3))) % 60
        places.append(words[place])
    path = tmp_path_factory.mktemp("data") / "words.txt"
    path.write_text(" ".join(places))
    return path


def settings(text, **changes):
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    rest = {"batch_size": 4, "context": 32, "log_every": 2, "evaluations": 2, "num_threads": 2, "engine": "numpy"}
    return TrainSettings(**{"data": str(text), "tokenizer": "char", **small, **rest, "max_steps": 12, **changes})


def losses(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["train_loss"], row.get("val_loss")) for row in rows]


def weights(out):
    with open_weights(out) as mapping:
        return {name: np.array(mapping[name]) for name in mapping}


def test_accumulated_batches_are_one_large_batch():
    tokens, targets = draw(8)
    targets[1, :7] = -100  # unequal counts: the mean is over targets, not over batches
    model = Llama.init(TINY, dtype=np.float64)
    a, whole = gradient(model, [(tokens, targets)])
    b, parts = gradient(model, [(tokens[i : i + 2], targets[i : i + 2]) for i in range(0, 8, 2)])
    assert a == pytest.approx(b, rel=1e-13)
    for name in whole:
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-9, atol=1e-13, err_msg=name)


def test_batches_of_different_widths_are_accumulated():
    model = Llama.init(TINY, dtype=np.float64)
    batches = [draw(2, T, seed=T) for T in (5, 12, 9)]
    loss, grads = gradient(model, batches)
    parts, counts = [model.loss_and_grads(*batch) for batch in batches], [10, 24, 18]
    assert loss == pytest.approx(np.average([part for part, _ in parts], weights=counts), rel=1e-13)
    for name, grad in grads.items():
        expected = sum(part[name] * count for (_, part), count in zip(parts, counts, strict=True)) / 52
        np.testing.assert_allclose(grad, expected, rtol=1e-9, atol=1e-13, err_msg=name)


def test_clipping_bounds_the_whole_step(text, tmp_path):
    trainer = Trainer(settings(text, clip=0.01), tmp_path / "run")
    trainer.backend.optimizer = SGD(trainer.backend.model.params, 1.0)
    before = {name: param.copy() for name, param in trainer.backend.model.params.items()}
    assert trainer.train_step([next(trainer.batches)], 1.0).grad_norm > 0.01
    moved = sum(float(np.sum((trainer.backend.model.params[name] - before[name]) ** 2)) for name in before)
    assert np.sqrt(moved) == pytest.approx(0.01, rel=1e-4)


def test_a_gradient_that_is_not_finite_changes_nothing(text, tmp_path):
    trainer = Trainer(settings(text, on_nan="skip"), tmp_path / "run")
    params = trainer.backend.model.params
    params["model.layers.0.mlp.up_proj.weight"][0, 0] = np.nan
    before = {name: param.copy() for name, param in params.items()}
    with np.errstate(invalid="ignore"):
        assert trainer.train_step([next(trainer.batches)], 0.1) is None
    assert trainer.backend.optimizer.steps == 0 and not trainer.backend.grads
    for name in before:
        np.testing.assert_array_equal(params[name], before[name])


def test_the_same_run_again_gives_the_same_bits(text, tmp_path):
    Trainer(settings(text), tmp_path / "a").fit()
    Trainer(settings(text), tmp_path / "b").fit()
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    for name, value in weights(tmp_path / "a").items():
        np.testing.assert_array_equal(value, weights(tmp_path / "b")[name], err_msg=name)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "lion", "ema": 0.9}, {"optimizer": "adafactor"}])
def test_a_stopped_run_goes_on_to_the_same_bits(text, tmp_path, changes):
    wanted = settings(text, evaluations=3, checkpoint_minutes=0.0, **changes)
    Trainer(wanted, tmp_path / "whole").fit()
    stop_before(Trainer(wanted, tmp_path / "halves"), 8, Exception)
    Trainer(wanted, tmp_path / "halves", resume=True).fit()
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")
    for name, value in weights(tmp_path / "whole").items():
        np.testing.assert_array_equal(value, weights(tmp_path / "halves")[name], err_msg=name)


def test_it_learns_the_language_and_leaves_a_model_that_loads(text, tmp_path):
    result = Trainer(settings(text, max_steps=150, lr=1e-2, batch_size=8), tmp_path / "run").fit()
    _, counts = np.unique(list(text.read_text()), return_counts=True)
    p = counts / counts.sum()
    assert result.evaluation.loss < -np.sum(p * np.log(p)) - 0.3  # well below what counting letters gives
    reloaded = Llama.from_pretrained(tmp_path / "run")
    assert reloaded.config.num_hidden_layers == 2
    assert (tmp_path / "run" / "loss.png").exists()


def test_the_average_is_evaluated_and_saved(text, tmp_path):
    trainer = Trainer(settings(text, ema=0.9), tmp_path / "run")
    loss = trainer.fit().evaluation.loss
    for name, value in weights(tmp_path / "run").items():
        np.testing.assert_array_equal(value, trainer.backend.average.params[name], err_msg=name)
        assert not np.array_equal(value, trainer.backend.model.params[name]), name
    backend, val = trainer.backend, trainer.dataset.val
    backend.eval_model = backend.model
    assert evaluate_split(backend.eval_loss_sum, val, 32, 4).loss != loss
    backend.eval_model = Llama.from_pretrained(tmp_path / "run")
    assert evaluate_split(trainer.backend.eval_loss_sum, trainer.dataset.val, 32, 4).loss == pytest.approx(
        loss, rel=1e-6
    )


def test_an_optimizer_that_volume_1_has_not_is_refused(text, tmp_path):
    with pytest.raises(UserError, match="schedulefree"):
        Trainer(settings(text, optimizer="schedulefree", schedule="constant"), tmp_path / "run")


def test_a_device_that_numpy_has_not_is_refused(text, tmp_path):
    with pytest.raises(UserError, match="cuda"):
        Trainer(settings(text, device="cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
