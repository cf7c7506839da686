"""A step that the host does not hold up: its kernels are recorded once, and the next gradient starts by itself.

    host     update n, gradient n+1 | figures of n, fetch batches n+2 | figures of n+1 are there: update n+1, ...
    device            update n, gradient n+1 ........................  |  update n+1, gradient n+2 ...

The host looks at every loss and norm before it launches the update, as the watchdog's decision is the host's: no step
is ever taken back. For that the device waits once a step, for two numbers and a launch: about 30 us, by estimate.
The batches, learning rate, number of counted targets and loss scale lie in tensors that stay where they are, since the
recording holds addresses. It holds its memory too: what an evaluation takes comes on top of a step's activations.
Tests: tests/vol2/test_graph_step.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nano_llama.core.errors import UserError
from nano_llama.data.batches import Batch
from nano_llama.training.backend import Notice, StepResult
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.launcher import CudaLauncher, Launcher, PlainLauncher, Recorded
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.optim import takes_tensor_lr
from nano_llama.vol2_torch.precision import Precision
from nano_llama.vol2_torch.step import EagerStep, Step, counted_targets, held_gradients, step_result
from nano_llama.vol2_torch.strategy import SingleProcess, Strategy
from nano_llama.vol2_torch.training_device import TorchDevice


class GraphStep:
    """A Step of step.py: two recordings, the gradient and the update. scaled: whether the loss has a scale (fp16)."""

    asynchronous = True

    def __init__(
        self, model: Llama, strategy: SingleProcess, optimizers: Sequence[torch.optim.Optimizer], clip: float,
        launcher: Launcher, notice: Notice, *, scaled: bool = False,
    ):  # fmt: skip
        self.model, self.strategy, self.optimizers, self.clip = model, strategy, optimizers, clip
        self.launcher, self.scaled = launcher, scaled
        self.arrays = 0  # of a batch: tokens, targets, and where rows are packed documents
        self.inputs: list[Tensor] = []  # of each batch in turn, (B,T) each; made when the first ones come
        self.coming: tuple[Sequence[Batch], list[Tensor]] = ((), [])  # batches that were prefetched, and their copies
        self.counted, self.scale = (torch.ones((), device=model.device) for _ in range(2))  # ()
        self.figures = torch.empty(0)  # (accumulate + 1,): of each batch its part of the loss, then the norm
        self._gradient = Recorded(self._compute_gradient, launcher, notice)
        # CUDA's fused AdamW reads the learning rate in float32; on the CPU nothing is rounded
        wide = torch.float64 if model.device.type == "cpu" else torch.float32
        self.lr = torch.zeros((), dtype=wide, device=model.device)
        self._update = None
        if all(map(takes_tensor_lr, optimizers)):
            self._update = Recorded(self._compute_update, launcher, notice)
            for optimizer in optimizers:
                optimizer._warned_capturable_if_run_uncaptured = True  # the first steps are
                for group in optimizer.param_groups:
                    group.update(lr=self.lr, capturable=True)

    # -- what the host asks for -----------------------------------------------------------------------------------

    def prefetch(self, batches: Sequence[Batch]) -> None:
        self.coming = batches, self._put(batches)

    def begin(self, batches: Sequence[Batch], scale: float) -> None:
        expected, arrived = self.coming
        if expected is not batches:
            arrived = self._put(batches)
        if not self.inputs:
            self.arrays, self.inputs = len(batches[0]), [torch.empty_like(tensor) for tensor in arrived]
        for own, new in zip(self.inputs, arrived, strict=True):
            assert own.shape == new.shape, "batches of text have one shape"
            own.copy_(new)
        self.counted.fill_(counted_targets(batches))
        self.scale.fill_(scale)
        self._gradient()
        self.launcher.send(self.figures)

    def _put(self, batches: Sequence[Batch]) -> list[Tensor]:
        return self.launcher.put([array for batch in batches for array in batch])

    def result(self) -> StepResult:
        return step_result(self.launcher.fetch())

    def update(self, lr: float) -> None:
        if self._update is None:
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = lr
            return self._compute_update()
        self.lr.fill_(lr)
        if self._gradient.failed:  # then each gradient lies elsewhere, which a recording would not see
            return self._compute_update()
        return self._update()

    def zero_grad(self) -> None:
        """The next gradient takes the place of this one, which no update will read."""

    # -- what is recorded: no waiting, no numbers of the host that change --------------------------------------------

    def _compute_gradient(self) -> None:
        self.model.zero_grad()  # in a recording, the gradients then get their places
        batches = [self.inputs[first : first + self.arrays] for first in range(0, len(self.inputs), self.arrays)]
        losses = [self.strategy.backward(b, self.counted, self.scale, last=b is batches[-1]) for b in batches]
        self.strategy.finish_gradients()
        if self.scaled:
            torch._foreach_mul_(held_gradients(self.strategy), 1.0 / self.scale)
        figures = torch.stack([*losses, self.strategy.norm()])
        if not len(self.figures):
            self.figures = torch.empty_like(figures)
        self.figures.copy_(figures)

    def _compute_update(self) -> None:
        if self.clip:
            self.strategy.clip(self.figures[-1], self.clip)
        for optimizer in self.optimizers:
            optimizer.step()


def make_step(
    settings: TrainSettings, model: Llama, strategy: Strategy, optimizers: Sequence[torch.optim.Optimizer],
    device: TorchDevice, precision: Precision, notice: Notice,
) -> Step:  # fmt: skip
    """The step that `settings.execution` names."""
    if settings.execution == "eager":
        return EagerStep(model, strategy, optimizers, settings.clip)
    assert isinstance(strategy, SingleProcess), "check_graph_settings has refused a mesh"
    launcher = CudaLauncher(device.place) if device.is_cuda else PlainLauncher(device.place)
    scaled = precision.name == "fp16"
    return GraphStep(model, strategy, optimizers, settings.clip, launcher, notice, scaled=scaled)


def check_graph_settings(settings: TrainSettings, place: torch.device) -> None:
    """Raise UserError where execution = graph cannot be had."""
    if settings.execution == "eager":
        return
    for what, fits in (
        (f"device = {place.type}: there are graphs on cuda, and their reference on cpu", place.type in ("cuda", "cpu")),
        (f"mesh = {settings.mesh}: a graph is of one process", settings.mesh is None),
        ("examples: their batches differ in shape, and a graph has one", not settings.from_examples),
    ):
        if not fits:
            raise UserError(f"execution = graph with {what}.", hint="Leave it out: --execution eager.")
