"""Where a run's tensors lie, and how a batch becomes a gradient there: a strategy, which TorchBackend is handed.

`SingleProcess` is the usual one, with everything in one place.
Tests: tests/vol2/test_trainer.py.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.data.batches import Batch
from nano_llama.training.backend import Notice
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.device import resolve_device
from nano_llama.vol2_torch.finetune.adapters import adapted_layers
from nano_llama.vol2_torch.finetune.start import model_to_train
from nano_llama.vol2_torch.generate import generate
from nano_llama.vol2_torch.loss import HeadLoss, head_loss, loss_sum
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.optim import Muon
from nano_llama.vol2_torch.precision import Precision
from nano_llama.vol2_torch.training_device import TorchDevice, choose_threads
from nano_llama.vol2_torch.training_state import owned_tensor, to_array

Parameters = Mapping[str, nn.Parameter]
AnyArray = np.ndarray | Tensor  # of the host, or of the device that computes
AnyBatch = Batch | Sequence[Tensor]
Scalar = float | Tensor  # ()


class Spread(Protocol):
    """How a run lies over processes, of which this is one."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    @property
    def muon(self) -> Callable[..., torch.optim.Optimizer]:
        """Makes the optimizer of whole matrices."""
        ...

    def place(self, settings: TrainSettings) -> torch.device:
        """The device of this process."""
        ...

    def threads(self, settings: TrainSettings, place: torch.device, notice: Notice) -> int:
        """How many of the CPU's threads this process takes; 0: as many as PyTorch takes by itself."""
        ...

    @property
    def model(self) -> Callable[..., tuple[Any, Parameters]]:
        """As finetune/start.py's model_to_train; but where a process is to hold a part of the model, and never all of
        it, on the meta device."""
        ...

    def strategy(
        self, model: Llama, parameters: Parameters, weights: Mapping[str, np.ndarray] | None, device: TorchDevice,
        precision: Precision, settings: TrainSettings,
    ) -> "Strategy":  # fmt: skip
        """Spread what `model` has returned. weights: those that it was given, or None for fresh ones."""
        ...


class Strategy(Protocol):
    """Batches, losses and norms are those of the whole run; what a process holds and computes of them is inside."""

    head_loss: HeadLoss

    @property
    def parameters(self) -> Parameters:
        """Those of this process that are trained, by their names in the whole model."""
        ...

    def backward(self, batch: Batch, counted: float, scale: float, *, last: bool) -> Tensor:
        """Add to the gradients those of `scale` times the loss -> the loss, (): nats summed over the batch's counted
        targets, divided by `counted`. last: the step's last batch."""
        ...

    def finish_gradients(self) -> None:
        """After the step's last batch."""
        ...

    def norm(self) -> Tensor:
        """Of the whole gradient, ()."""
        ...

    def clip(self, norm: Tensor, limit: float) -> None:
        """Scale the gradient, whose norm this is, to a norm of at most `limit`."""
        ...

    def evaluate(self, batch: Batch) -> float:
        """The batch's nats, summed over its counted targets, without a gradient."""
        ...

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> Iterator[int]: ...

    def swapped(self, weights: Mapping[str, Tensor]) -> Any:
        """A context in which the model computes with these tensors in place of its parameters."""
        ...

    def arrays(self, tensors: Mapping[str, Tensor], beside: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The whole of each tensor, by the same names: those of parameters, or training/checkpoint_keys.py's.

        beside: arrays that are added, of which every process has the whole.
        """
        ...

    def lies_elsewhere(self, name: str) -> bool:
        """Whether this parameter of the whole model is another process's."""
        ...

    def placed(self, parameter: nn.Parameter, whole: np.ndarray) -> Tensor:
        """Of a tensor that belongs to a parameter (its value, or what an optimizer keeps) what lies here, a copy."""
        ...

    def figures(self) -> dict[str, Any]:
        """What a line of metrics.jsonl says of the processes."""
        ...


class SingleProcess:
    """A model that is whole in this process. parameters: those that are trained. z_loss: its weight in the loss."""

    def __init__(
        self, model: Llama, parameters: Parameters, device: TorchDevice, precision: Precision, z_loss: float = 0.0
    ):
        self.model, self.parameters, self.device, self.precision = model, parameters, device, precision
        self.z_loss = z_loss
        self.head_loss: HeadLoss = head_loss

    def loss_sum(
        self, tokens: AnyArray, targets: AnyArray, documents: AnyArray | None = None, *images: AnyArray,
        z_loss: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """Nats summed over the counted targets, in the run's precision.  tokens, targets, documents: (B,T) -> ()

        images: the pixel_values (N,3,S,S) of a model that reads images.
        """
        put = self.device.tensor
        of = None if documents is None else put(documents)
        with self.precision.autocast():
            return loss_sum(
                self.model, put(tokens), put(targets), self.head_loss, z_loss, of, images=tuple(map(put, images))
            )

    def backward(self, batch: AnyBatch, counted: Scalar, scale: Scalar, *, last: bool) -> Tensor:
        """What is a tensor lies on the device already: then nothing is copied, and nothing waited for."""
        part = self.loss_sum(*batch, z_loss=self.z_loss) / counted  # the parts add up to the mean
        (scale * part).backward()
        return part.detach()

    def finish_gradients(self) -> None:
        pass

    def norm(self) -> Tensor:
        return torch.nn.utils.get_total_norm([p.grad for p in self.parameters.values() if p.grad is not None])

    def clip(self, norm: Tensor, limit: float) -> None:
        torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), limit, norm)

    def evaluate(self, batch: Batch) -> float:
        return self.loss_sum(*batch).item()

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> Iterator[int]:
        # beneath an adapter, matrices are held in the precision of the products
        computing = self.precision.autocast if adapted_layers(self.model) else nullcontext
        return generate(self.model, prompt_ids, params, computing=computing)

    @contextmanager
    def swapped(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Nothing is copied."""
        trained = {name: parameter.data for name, parameter in self.parameters.items()}
        try:
            self._swap_in(weights)
            yield
        finally:
            self._swap_in(trained)

    def _swap_in(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.data = weights[name]

    def arrays(self, tensors: Mapping[str, Tensor], beside: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: to_array(tensor) for name, tensor in tensors.items()} | dict(beside)

    def lies_elsewhere(self, name: str) -> bool:
        return False

    def placed(self, parameter: nn.Parameter, whole: np.ndarray) -> Tensor:
        return owned_tensor(whole).to(parameter.device)

    def figures(self) -> dict[str, Any]:
        return {}


class Alone:
    """The usual case: one process."""

    size = 1
    muon = Muon
    model = staticmethod(model_to_train)

    def place(self, settings: TrainSettings) -> torch.device:
        if settings.mesh:
            raise UserError(f"mesh = {settings.mesh!r}: this trainer is of one process.", hint="Leave mesh out.")
        return resolve_device(settings.device)

    def threads(self, settings: TrainSettings, place: torch.device, notice: Notice) -> int:
        return choose_threads(settings, place, notice)

    def strategy(
        self, model: Llama, parameters: Parameters, weights: Mapping[str, np.ndarray] | None, device: TorchDevice,
        precision: Precision, settings: TrainSettings,
    ) -> SingleProcess:  # fmt: skip
        return SingleProcess(model, parameters, device, precision, settings.z_loss)


ALONE = Alone()
