"""A run over a mesh, as TorchBackend is handed it: the batches, losses, norms and tensors of all ranks together.

Every rank calls the same methods in the same order, with the same global batches. What `arrays` returns is whole, as
one process would have it, so that a checkpoint says nothing of the mesh it comes from: it is resumed on any other, or
without one. The first rank alone gets them, one at a time (gathered.py). Tests: tests/parallel/test_trainer.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from nano_llama.core.sampling import SamplingParams
from nano_llama.data.batches import Batch
from nano_llama.vol2_torch.finetune.adapters import adapted_layers
from nano_llama.vol2_torch.generate import generate
from nano_llama.vol2_torch.loss import HeadLoss
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.parallel.config import ParallelConfig
from nano_llama.vol2_torch.parallel.cp import whole_sequences
from nano_llama.vol2_torch.parallel.draws import own_draws
from nano_llama.vol2_torch.parallel.fsdp import kept_gathered
from nano_llama.vol2_torch.parallel.gathered import MeshTensors
from nano_llama.vol2_torch.parallel.gradients import clip, local
from nano_llama.vol2_torch.parallel.matrix_parts import like
from nano_llama.vol2_torch.parallel.parallelize import Parallel
from nano_llama.vol2_torch.parallel.weights import exchange, part_of, whole_tensors
from nano_llama.vol2_torch.parallel.wire import CommBytes
from nano_llama.vol2_torch.precision import Precision
from nano_llama.vol2_torch.training_device import TorchDevice
from nano_llama.vol2_torch.training_state import owned_tensor


class MeshStrategy:
    """A model that `parallelize` has spread over the mesh. axes: the mesh's, as the user wrote them."""

    def __init__(
        self, parallel: Parallel, mesh: DeviceMesh, axes: ParallelConfig, model: Llama, trained: Sequence[str],
        device: TorchDevice, precision: Precision, *, draws: bool,
    ):  # fmt: skip
        """model: what `parallel` was made of. trained: names of parameters. draws: a step draws random numbers."""
        self.parallel, self.mesh, self.axes, self.model, self.device = parallel, mesh, axes, model, device
        self.precision, self.draws, self.trained = precision, draws, frozenset(trained)
        self.parameters: dict[str, nn.Parameter] = {
            name: parallel.parameters[name] for name in trained if name in parallel.parameters
        }
        self.counter = CommBytes(mesh)
        self.sent: dict[str, int] | None = None  # bytes by axis that a step sends; None: not counted yet

    @property
    def head_loss(self) -> HeadLoss:
        return self.parallel.steps.head_loss

    @head_loss.setter
    def head_loss(self, form: HeadLoss) -> None:
        if self.axes.tp == 1:  # a head that is cut has a loss of its own
            self.parallel.steps.head_loss = form

    # -- a step ---------------------------------------------------------------------------------------------------

    def backward(self, batch: Batch, counted: float, scale: float, *, last: bool) -> Tensor:
        drawing = own_draws(self.mesh, self.device.place) if self.draws else nullcontext()
        with self._counting(), drawing:
            part = self.parallel.backward(*self._own(batch), weight=scale / counted, last=last)
            return self.parallel.total(part) / scale

    def finish_gradients(self) -> None:
        with self._counting():
            self.parallel.reduce_gradients()
        self.sent = self.sent or dict(self.counter.by_axis)

    def _counting(self) -> AbstractContextManager:
        """What is sent within is counted, in the first step alone: it takes time."""
        return self.counter if self.sent is None else nullcontext()

    def norm(self) -> Tensor:
        return self.parallel.global_norm()

    def clip(self, norm: Tensor, limit: float) -> None:
        clip([parameter.grad for parameter in self.parameters.values() if parameter.grad is not None], norm, limit)

    def evaluate(self, batch: Batch) -> float:
        return self.parallel.eval_loss_sum(*self._own(batch)).item()

    def _own(self, batch: Batch) -> list[Tensor]:
        return [self.device.tensor(array) for array in self.parallel.local_batch(batch)]

    # -- whole tensors --------------------------------------------------------------------------------------------

    @contextmanager
    def swapped(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        exchange(self.parameters, weights)
        try:
            yield
        finally:
            exchange(self.parameters, weights)

    def arrays(self, tensors: Mapping[str, Tensor], beside: Mapping[str, np.ndarray]) -> MeshTensors:
        return MeshTensors(tensors, self.mesh, beside)

    def lies_elsewhere(self, name: str) -> bool:
        return name in self.trained and name not in self.parameters

    def placed(self, parameter: nn.Parameter, whole: np.ndarray) -> Tensor:
        """What this rank holds of a whole tensor that belongs to a parameter, as the parameter holds its own."""
        if whole.shape != parameter.shape:  # a count of steps, say
            return owned_tensor(whole).to(self.device.place)
        return like(owned_tensor(part_of(whole, parameter)).to(self.device.place), parameter)

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> Iterator[int]:
        """The same tokens on every rank, since the seed is the same. For them a rank has the whole model."""
        if self.axes.tp > 1 or self.axes.pp > 1:
            yield from generate(self._whole_model(), prompt_ids, params)
            return
        computing = self.precision.autocast if adapted_layers(self.model) else nullcontext
        with whole_sequences(self.model) if self.axes.cp > 1 else nullcontext(), kept_gathered(self.model):
            yield from generate(self.model, prompt_ids, params, computing=computing)

    def _whole_model(self) -> Llama:
        with torch.device("meta"):
            model = Llama(self.model.config)
        model = model.to_empty(device=self.device.place)
        own = model.named_params()
        for name, whole in whole_tensors(self.parameters, self.mesh):
            own[name].data.copy_(whole)
        return model

    def figures(self) -> dict[str, Any]:
        held = sum(local(parameter).numel() for parameter in self.parallel.parameters.values())
        return {"mesh": str(self.axes), "params_per_rank": held, "comm_bytes": self.sent or {}}
