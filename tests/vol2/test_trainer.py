"""Volume 2's trainer: it learns, it does what a naive loop does, and the same settings give the same bits."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.errors import EnvironmentFault, UserError  # noqa: E402
from nano_llama.data.batches import Batches  # noqa: E402
from nano_llama.data.prepare import prepare  # noqa: E402
from nano_llama.formats import open_weights  # noqa: E402
from nano_llama.training.metrics import read_metrics  # noqa: E402
from nano_llama.training.outcome import TrainingDiverged  # noqa: E402
from nano_llama.vol2_torch import Llama, training_device  # noqa: E402
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402


def losses(folder):
    return [row["train_loss"] for row in read_metrics(folder / "metrics.jsonl")]


def weights(folder):
    with open_weights(folder) as saved:
        return {name: np.array(saved[name]) for name in saved}


def test_it_learns_more_than_the_letters_frequencies(recipe, tmp_path, tale):
    result = Trainer(
        recipe.replace(hidden_size=48, num_hidden_layers=2, max_steps=120, optimizer="muon"), tmp_path / "run"
    ).fit()
    text = tale.read_text()
    frequencies = np.array([text.count(letter) for letter in set(text)]) / len(text)
    unigram = -float(np.sum(frequencies * np.log(frequencies)))
    first = losses(tmp_path / "run")[0]
    assert first == pytest.approx(math.log(len(set(text))), rel=0.15), "a fresh model knows nothing"
    assert result.evaluation.loss < 0.6 * unigram


def test_training_equals_a_naive_loop(recipe, tmp_path):
    """The reference: plain PyTorch in twenty lines, unfused, with its own clipping, decay and schedule."""
    Trainer(recipe.replace(clip=0.5), tmp_path / "run").fit()
    dataset = prepare(recipe.data, "char")
    model = Llama.init(recipe.llama_config(dataset.vocab_size), seed=0)
    first, second = ([torch.zeros_like(p) for p in model.parameters()] for _ in range(2))
    batches = Batches(dataset.train, recipe.batch_size, recipe.context, recipe.seed)
    expected = []
    for step in range(12):
        tokens, targets = (torch.from_numpy(array) for array in next(batches))
        loss = -torch.log_softmax(model(tokens), -1).gather(-1, targets[..., None]).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        expected.append(loss.item())
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
        progress, warmup = (step + 0.5) / 12, 0.05
        fall = 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
        lr = 0.01 * (progress / warmup if progress < warmup else 0.1 + 0.9 * fall)
        with torch.no_grad():
            for p, g, m, v in zip(model.parameters(), gradients, first, second, strict=True):
                g = g * min(1.0, 0.5 / norm)
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.99).add_(0.01 * g * g)
                if p.dim() >= 2:
                    p.mul_(1 - lr * 0.1)
                p -= lr * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8)
    assert losses(tmp_path / "run") == pytest.approx(expected, rel=2e-5)
    saved = weights(tmp_path / "run")
    for name, parameter in model.named_params().items():
        difference = np.abs(saved[name] - parameter.detach().numpy()).max()
        assert difference < 1e-4 * max(parameter.abs().max().item(), 1e-12), name


def test_the_same_settings_give_the_same_bits(recipe, tmp_path):
    for name in "ab":
        Trainer(recipe, tmp_path / name).fit()
    Trainer(recipe.replace(seed=1), tmp_path / "c").fit()
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_accumulated_batches_are_one_large_batch(recipe, tmp_path):
    Trainer(recipe, tmp_path / "large").fit()
    Trainer(recipe.replace(batch_size=2, accumulate=4), tmp_path / "small").fit()
    assert losses(tmp_path / "large") == pytest.approx(losses(tmp_path / "small"), rel=1e-4)


def test_a_mean_over_counted_targets_whatever_the_batches(recipe, tmp_path):
    """Ignored targets and unequal parts: the gradient is that of all counted targets together."""
    trainer = Trainer(recipe, tmp_path / "run")
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, trainer.config.vocab_size, (6, 16))
    targets = rng.integers(0, trainer.config.vocab_size, (6, 16))
    targets[0, 3:], targets[5] = -100, -100
    parts = [(tokens[:1], targets[:1]), (tokens[1:], targets[1:])]
    twin = Trainer(recipe, tmp_path / "twin")
    assert trainer.train_step(parts, 1e-3) == pytest.approx(twin.train_step([(tokens, targets)], 1e-3), rel=1e-5)
    for name, parameter in trainer.backend.parameters.items():
        torch.testing.assert_close(parameter, twin.backend.parameters[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("spoiled", ["loss", "gradient"])
def test_a_non_finite_loss_changes_no_weight(recipe, tmp_path, spoiled):
    trainer = Trainer(recipe, tmp_path / "run")
    if spoiled == "loss":
        with torch.no_grad():
            trainer.backend.model.model.norm.weight[0] = math.inf
    else:
        trainer.backend.model.model.norm.weight.register_hook(lambda gradient: gradient * math.nan)
    before = {name: array.copy() for name, array in trainer.backend.weights().items()}
    with pytest.raises(TrainingDiverged, match="step 1"):
        trainer.fit()
    assert all(np.array_equal(trainer.backend.weights()[name], before[name], equal_nan=True) for name in before)


def test_settings_that_it_cannot_honour_are_refused(recipe, tmp_path):
    with pytest.raises(UserError, match="engine = 'numpy'"):
        Trainer(recipe.replace(engine="numpy"), tmp_path / "run")
    with pytest.raises((UserError, EnvironmentFault), match="cuda:77"):
        Trainer(recipe.replace(device="cuda:77"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_threads_are_set_for_the_run_only(recipe, tmp_path):
    before, seen = torch.get_num_threads(), []
    trainer = Trainer(recipe.replace(max_steps=1, evaluations=0), tmp_path / "run")
    step = trainer.train_step
    trainer.train_step = lambda *arguments: seen.append(torch.get_num_threads()) or step(*arguments)
    trainer.fit()
    assert seen == [1] and torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("changes", "place", "chosen"),
    [
        ({"max_minutes": 1.0, "num_threads": 0}, "cpu", 7),
        ({"max_minutes": 1.0, "num_threads": 2}, "cpu", 2),
        ({"max_minutes": 1.0, "num_threads": 0}, "cuda", 0),
        ({"num_threads": 0}, "cpu", 0),
    ],
)
def test_only_a_run_by_the_clock_takes_as_many_threads_as_are_free(recipe, monkeypatch, changes, place, chosen):
    """By steps, the same settings must give the same bits, whatever else the machine does."""
    monkeypatch.setattr(training_device, "free_threads", lambda threads, notice: 7)
    assert training_device.choose_threads(recipe.replace(**changes), torch.device(place), pytest.fail) == chosen


def test_gradients_are_reduced_over_the_ranks_that_share_a_batch(recipe, tmp_path):
    class TwoEqualRanks:
        def count(self, targets):
            return 2 * targets

        def reduce(self, gradients, loss):
            torch._foreach_mul_(gradients, 2.0)
            return 2.0 * loss

    one, two = (Trainer(recipe, tmp_path / name) for name in ("one", "two"))
    two.backend.ranks = TwoEqualRanks()
    batch = next(one.batches)
    assert one.train_step([batch], 1e-3) == two.train_step([batch], 1e-3)
    for name, parameter in one.backend.parameters.items():
        assert torch.equal(parameter, two.backend.parameters[name]), name
