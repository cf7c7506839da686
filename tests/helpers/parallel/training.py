"""Twenty steps of a small model, in one process and on a mesh: what tests/parallel/ compares.

The rows of a batch ignore different numbers of targets, one of them all, so that ranks count different numbers.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch

from nano_llama.core.config import LlamaConfig
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.core.names import is_hidden_matrix
from nano_llama.vol2_torch.compiling import compile_layers
from nano_llama.vol2_torch.loss import loss_sum
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.optim import Lion, Muon
from nano_llama.vol2_torch.parallel.gradients import clip
from nano_llama.vol2_torch.parallel.mesh import stage_group
from nano_llama.vol2_torch.parallel.owner_muon import OwnerMuon
from nano_llama.vol2_torch.parallel.parallelize import parallelize

DTYPES = {"float32": torch.float32, "float64": torch.float64}
CLIP = 1.0


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained, and how."""

    tied: bool = True
    vocab_size: int = 128
    heads: int = 4
    kv_heads: int = 2
    layers: int = 2
    intermediate: int = 96
    rows: int = 8
    accumulate: int = 1  # batches of a step
    steps: int = 20
    optimizer: str = "adamw"
    dtype: str = "float32"
    z_loss: float = 0.0
    activation_checkpointing: str = "none"
    compiled: bool = False  # layer by layer
    bf16: bool = False
    hidden_act: str = "silu"
    sliding_window: int | None = None
    norm_placement: str = "pre"

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocab_size, hidden_size=16 * self.heads, intermediate_size=self.intermediate, head_dim=16,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, num_key_value_heads=self.kv_heads,
            max_position_embeddings=64, tie_word_embeddings=self.tied, hidden_act=self.hidden_act,
            sliding_window=self.sliding_window, norm_placement=self.norm_placement,
        )  # fmt: skip

    def model(self) -> Llama:
        model = Llama.init(self.config(), seed=0, dtype=DTYPES[self.dtype])
        model.train_with(0.0, self.activation_checkpointing)
        if self.compiled:
            compile_layers(model)
        return model

    def autocast(self) -> AbstractContextManager:
        return torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext()

    def batches(self, step: int, T: int = 32) -> list[tuple[np.ndarray, np.ndarray]]:
        """The batches of a step, tokens and targets (B,T) each; they repeat after 4 steps, so that they are learned."""
        batches = []
        for part in range(self.accumulate):
            rng = np.random.default_rng((step % 4, part))
            text = rng.integers(0, self.vocab_size, (self.rows, T + 1))
            targets = text[:, 1:].copy()
            targets[0, : T // 2] = targets[-1] = IGNORE_INDEX
            targets[self.rows // 2, 5 + part :] = IGNORE_INDEX
            batches.append((text[:, :-1].copy(), targets))
        return batches

    def optimizers(self, parameters: dict[str, Any], make_muon: Callable[..., Muon]) -> list[torch.optim.Optimizer]:
        hidden = [p for name, p in parameters.items() if self.optimizer == "muon" and is_hidden_matrix(name)]
        others = [p for name, p in parameters.items() if not (self.optimizer == "muon" and is_hidden_matrix(name))]
        made: list[torch.optim.Optimizer] = [make_muon(hidden, lr=3e-3, weight_decay=0.1)] if hidden else []
        if self.optimizer == "lion":
            made.append(Lion(others, lr=1e-3, weight_decay=0.1))
        elif self.optimizer == "adafactor":
            made.append(torch.optim.Adafactor(others, lr=3e-3, eps=(1e-16, 1e-3), foreach=True))
        elif self.optimizer == "schedulefree":
            made.append(pytest.importorskip("schedulefree").AdamWScheduleFree(others, lr=3e-3, foreach=True))
            made[0].train()
        elif others:
            made.append(torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True))
        return made


@dataclass
class Outcome:
    """losses and norms by step, an evaluation after the second and the last; gradients of the first step and parameters
    after the last, by name."""

    losses: list[float]
    norms: list[float]
    evaluations: list[float]
    gradients: dict[str, np.ndarray]
    parameters: dict[str, np.ndarray]


def count(batches) -> int:
    return sum(int((targets != IGNORE_INDEX).sum()) for _, targets in batches)


def full(tensor: torch.Tensor) -> np.ndarray:
    """All of a tensor, gathered from the ranks if it is a DTensor."""
    whole: Any = getattr(tensor, "full_tensor", lambda: tensor)()
    return whole.detach().numpy().copy()


def run(
    training: Training, gradient: Callable[[list], float], parameters, norm: Callable[[], torch.Tensor],
    evaluate: Callable[[tuple], float], optimizers: list[torch.optim.Optimizer],
) -> Outcome:  # fmt: skip
    """The steps. gradient(batches) -> the loss, with parameters' gradients set. evaluate(batch) -> its nats."""
    outcome = Outcome([], [], [], {}, {})
    for step in range(training.steps):
        outcome.losses.append(gradient(training.batches(step)))
        if step == 0:
            outcome.gradients = {name: full(parameter.grad) for name, parameter in parameters.items()}
        size = norm()
        outcome.norms.append(size.item())
        clip([parameter.grad for parameter in parameters.values()], size, CLIP)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step in (1, training.steps - 1):
            outcome.evaluations.append(evaluate(training.batches(step + 1)[0]) / 100)  # about the size of a loss
    outcome.parameters = {name: full(parameter) for name, parameter in parameters.items()}
    return outcome


@cache
def reference(training: Training) -> Outcome:
    """In this process, with nothing of nano_llama/vol2_torch/parallel but what is asserted elsewhere."""
    model = training.model()
    parameters = model.named_params()

    def gradient(batches) -> float:
        counted, total = count(batches), 0.0
        for tokens, targets in batches:
            x, t = torch.from_numpy(tokens), torch.from_numpy(targets)
            with training.autocast():
                part = loss_sum(model, x, t, z_loss=training.z_loss) / counted
            part.backward()
            total += part.item()
        return total

    def norm() -> torch.Tensor:
        return torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters.values()])

    @torch.no_grad()
    def evaluate(batch) -> float:
        with training.autocast():
            return loss_sum(model, *map(torch.from_numpy, batch)).item()

    return run(training, gradient, parameters, norm, evaluate, training.optimizers(parameters, Muon))


def train(here, mesh: str, training: Training, **options: Any) -> Outcome:
    """The same on a mesh: a case for `Ranks.run`."""
    model = training.model()
    parallel = parallelize(model, here.mesh(mesh), z_loss=training.z_loss, autocast=training.autocast, **options)
    parameters = parallel.parameters

    def gradient(batches) -> float:
        counted, total = count(batches), torch.zeros(())
        for index, batch in enumerate(batches):
            tokens, targets = (torch.from_numpy(part) for part in parallel.local_batch(batch))
            total = total + parallel.backward(tokens, targets, weight=1 / counted, last=index == len(batches) - 1)
        parallel.reduce_gradients()
        return parallel.total(total).item()

    def evaluate(batch) -> float:
        return parallel.eval_loss_sum(*map(torch.from_numpy, parallel.local_batch(batch))).item()

    optimizers = training.optimizers(parameters, partial(OwnerMuon, group=stage_group(here.mesh(mesh))))
    return run(training, gradient, parameters, parallel.global_norm, evaluate, optimizers)


def merged(outcomes: list[Outcome]) -> Outcome:
    """The first rank's, with the gradients and parameters that only other ranks have. What two have is equal."""
    whole = Outcome(outcomes[0].losses, outcomes[0].norms, outcomes[0].evaluations, {}, {})
    for outcome in outcomes:
        for kind in ("gradients", "parameters"):
            for name, array in getattr(outcome, kind).items():
                known = getattr(whole, kind).setdefault(name, array)
                assert np.array_equal(known, array), f"{name} is not the same on all ranks"
    return whole


def worst(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> tuple[float, str]:
    """The largest relative error of a tensor, and which one it is."""
    assert found.keys() == expected.keys()
    errors = {
        name: np.abs(found[name] - expected[name]).max() / max(np.abs(expected[name]).max(), 1e-12) for name in expected
    }
    name = max(errors, key=lambda name: errors[name])
    return float(errors[name]), name


def compare(found: Outcome, training: Training, name: str, tolerance: float | None = None) -> None:
    """The first step's gradients tensor by tensor, all losses, norms and evaluations. Says what differs, and where."""
    expected = reference(training)
    tolerance = tolerance or {"float32": 1e-5, "float64": 1e-10}[training.dtype]
    error, tensor = worst(found.gradients, expected.gradients)
    assert error <= tolerance, f"{name}, {training.optimizer}: the gradient of {tensor} differs by {error:.1e}"
    for kind in ("losses", "norms", "evaluations"):
        ours, theirs = getattr(found, kind), getattr(expected, kind)
        differences = np.abs(np.subtract(ours, theirs))
        worst_one = int(differences.argmax())
        assert differences[worst_one] <= tolerance, (
            f"{name}, {training.optimizer}: number {worst_one} of the {kind} differs by {differences[worst_one]:.1e}"
        )
