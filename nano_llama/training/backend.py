"""What an engine brings to training: a `Backend`, which its volume builds and the loop is handed.

A backend is valid from construction. Fine-tuning and parallel training are further backends, or the same one composed
of other parts: the loop never changes for them. Tests: tests/training/test_loop.py, with a backend of a few lines.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from nano_llama.core.machine import available_bytes, peak_resident_bytes
from nano_llama.core.sampling import SamplingParams
from nano_llama.core.vision.config import ModelConfig
from nano_llama.data.batches import Batch
from nano_llama.data.vqa.answers import Answer
from nano_llama.training.preflight import Preflight
from nano_llama.training.settings import TrainSettings

Notice = Callable[[str], None]  # shows the user one sentence


class StepResult(NamedTuple):
    """What a forward and a backward pass found."""

    loss: float  # nats per token, mean over the counted targets of the step's batches
    grad_norm: float  # global norm of the gradient, before clipping


class Device(Protocol):
    """What the model computes on."""

    @property
    def name(self) -> str:
        """As shown to the user: cpu, cuda:0 ..."""
        ...

    @property
    def deterministic(self) -> bool:
        """Whether the same run gives the same bits here, twice and after a kill."""
        ...

    def available_memory(self) -> int | None:
        """Bytes that the run may take; None: unknown."""
        ...

    def peak_memory(self) -> int:
        """The most bytes that the run has taken so far."""
        ...

    def peak_flops(self) -> float | None:
        """FLOP/s of matrix products in the run's precision, measured; None: not measured."""
        ...

    def computing(self) -> AbstractContextManager:
        """Entered around the whole run: sets the number of threads, and restores it."""
        ...


@dataclass(frozen=True)
class HostDevice:
    """The machine's own processor and memory: the default device."""

    name: str = "cpu"
    deterministic: bool = True
    computing: Callable[[], AbstractContextManager] = nullcontext

    def available_memory(self) -> int | None:
        return available_bytes()

    def peak_memory(self) -> int:
        return peak_resident_bytes()

    def peak_flops(self) -> float | None:
        return None


class Backend(Protocol):
    """The arithmetic of one run: its model, gradient, update, and their state in a checkpoint."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def device(self) -> Device: ...

    @property
    def expected(self) -> Preflight:
        """What the run needs."""
        ...

    @property
    def ahead(self) -> "Ahead | None":
        """None: this backend computes when it is asked."""
        ...

    def gradient(self, batches: Sequence[Batch]) -> StepResult:
        """Compute and hold the mean gradient over all counted targets of `batches`. On failure nothing has changed."""
        ...

    def update(self, lr: float) -> None:
        """Clip the gradient, update the weights with it, and clear it."""
        ...

    def zero_grad(self) -> None:
        """Clear the gradient without an update."""
        ...

    def eval_loss_sum(
        self, tokens: np.ndarray, targets: np.ndarray, documents: np.ndarray | None = None, *images: np.ndarray
    ) -> float:
        """The loss in nats, summed over the counted targets, without a gradient.  All (B,T).

        documents: where rows are packed, the number of each token's document; attention stays within it. images: the
        pixel_values (N,3,S,S) of a model that reads images.
        """
        ...

    def use_averaged_weights(self) -> AbstractContextManager:
        """Entered around an evaluation: within, the model computes with what `weights` returns."""
        ...

    def figures(self) -> dict[str, Any]:
        """What else a line of metrics.jsonl holds: of kernels, and of the processes that train together."""
        ...

    @property
    def answer(self) -> Answer | None:
        """Answers questions about images; None: the model reads text alone."""
        ...

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> Iterator[int]:
        """The ids that follow the prompt, one by one, until the text or the context ends."""
        ...

    def weights(self) -> Mapping[str, np.ndarray]:
        """What is evaluated and saved, by parameter name: the average of the weights, if the run keeps one."""
        ...

    def training_tensors(self) -> Mapping[str, np.ndarray]:
        """All else that the next update depends on, under the keys of checkpoint_keys.py: optimizer state, states of
        random generators, and the trained weights if `weights` returns their average."""
        ...

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Continue from what `training_tensors` returned."""
        ...

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Once no update follows: take over what `weights` has returned earlier."""
        ...

    def warm_up(self, batch: Batch) -> None:
        """Do once what makes the first step slower than the others (compiling), without changing the run's state."""
        ...


class Ahead(Protocol):
    """What a backend can do before it is asked, on a device that computes by itself. Both methods return at once."""

    def begin(self, batches: Sequence[Batch]) -> None:
        """Start on the gradient that `Backend.gradient` is asked for next."""
        ...

    def prefetch(self, batches: Sequence[Batch]) -> None:
        """Start to copy to the device what `begin` is given next."""
        ...


class Engine(Protocol):
    """How a backend comes about: a backend's class, which checks the settings first and creates the backend later."""

    def check_settings(self, settings: TrainSettings) -> None:
        """Raise UserError for a setting that this engine cannot honour: before any data is read."""
        ...

    def create(
        self, settings: TrainSettings, config: ModelConfig, weights: Mapping[str, np.ndarray] | None, notice: Notice,
        *, adapter: Mapping[str, np.ndarray] | None = None,
    ) -> Backend:  # fmt: skip
        """A backend with these weights, or fresh ones by `settings.seed` (None). Raises UserError if it cannot fit.

        Where `settings.lora` asks for an adapter, that alone is trained, and is what `Backend.weights` returns; in a
        run on pictures with what looks at these. adapter: its tensors by core/lora.py's names, which of a model with
        images begin as its LLaMA's do (core/vision/names.py), or None for a fresh one.
        """
        ...
