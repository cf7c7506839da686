"""A run over a mesh, as TorchBackend is handed it: the batches, losses, norms and tensors of all ranks together.

Every rank calls the same methods in the same order, with the same global batches. What `arrays` returns is whole, as
one process would have it, so that a checkpoint says nothing of the mesh it comes from: it is resumed on any other, or
without one. The first rank alone gets the tensors. Tests: tests/parallel/test_trainer.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset  # torch's checkpoints need it too

from nano_llama.core.config import LlamaConfig
from nano_llama.core.names import parameter_shapes
from nano_llama.core.sampling import SamplingParams
from nano_llama.data.batches import Batch
from nano_llama.training.checkpoint_keys import split
from nano_llama.vol2_torch.generate import generate
from nano_llama.vol2_torch.loss import HeadLoss
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.parallel.config import ParallelConfig
from nano_llama.vol2_torch.parallel.gradients import clip, local
from nano_llama.vol2_torch.parallel.matrix_parts import like
from nano_llama.vol2_torch.parallel.parallelize import Parallel
from nano_llama.vol2_torch.parallel.weights import exchange, whole_parameters
from nano_llama.vol2_torch.parallel.wire import CommBytes
from nano_llama.vol2_torch.training_device import TorchDevice
from nano_llama.vol2_torch.training_state import to_array


class MeshStrategy:
    """A model that `parallelize` has spread over the mesh. axes: the mesh's, as the user wrote them."""

    def __init__(
        self, parallel: Parallel, mesh: DeviceMesh, axes: ParallelConfig, config: LlamaConfig, device: TorchDevice
    ):
        self.parallel, self.mesh, self.axes, self.config, self.device = parallel, mesh, axes, config, device
        self.parameters: dict[str, nn.Parameter] = parallel.parameters
        self.names = frozenset(parameter_shapes(config))  # of the whole model
        self.sent: dict[str, int] | None = None  # bytes by axis that a step sends; None: not counted yet
        self.counter = CommBytes(mesh)  # of the first step alone: it takes time
        self.counting, self.is_counting = ExitStack(), False

    @property
    def head_loss(self) -> HeadLoss:
        return self.parallel.steps.head_loss

    @head_loss.setter
    def head_loss(self, form: HeadLoss) -> None:
        if self.axes.tp == 1:  # a head that is cut has a loss of its own
            self.parallel.steps.head_loss = form

    # -- a step ---------------------------------------------------------------------------------------------------

    def backward(self, batch: Batch, counted: int, scale: float, *, last: bool) -> float:
        if self.sent is None and not self.is_counting:
            self.counting.enter_context(self.counter)
            self.is_counting = True
        try:
            part = self.parallel.backward(*self._own(batch), weight=scale / counted, last=last)
        except BaseException:
            self.counting.close()
            raise
        return self.parallel.total(part).item() / scale

    def finish_gradients(self) -> None:
        self.parallel.reduce_gradients()
        if self.sent is None:
            self.counting.close()
            self.sent = dict(self.counter.by_axis)

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

    def arrays(self, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Gathered tensor by tensor, each from the ranks that hold a part; then from the stages of a pipeline."""
        sends = all(self.mesh[axis].get_local_rank() == 0 for axis in ("dp", "fsdp", "cp", "tp"))
        found: dict[str, np.ndarray] = {}
        for name, tensor in tensors.items():
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if (
                sends
                and split(name)[0] not in self.parallel.steps.repeated
                and name not in self.parallel.steps.repeated
            ):
                found[name] = to_array(whole)
        if self.axes.pp > 1 and sends:
            group = self.mesh["pp"].get_group()
            stages: list[Any] = [None] * group.size()
            first = dist.get_global_rank(group, 0)
            dist.gather_object(found, stages if dist.get_rank() == first else None, dst=first, group=group)
            found = {name: array for stage in stages if stage for name, array in stage.items()}
        return found if dist.get_rank() == 0 else {}

    def lies_elsewhere(self, name: str) -> bool:
        return name in self.names and name not in self.parameters

    def placed(self, parameter: nn.Parameter, value: Tensor) -> Tensor:
        """What this rank holds of a whole tensor that belongs to a parameter, as the parameter holds its own."""
        value = value.to(self.device.place)
        if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
            return value
        shape, offset = compute_local_shape_and_global_offset(
            parameter.shape, parameter.device_mesh, parameter.placements
        )
        part = value[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))]
        return like(part.clone(), parameter)

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> Iterator[int]:
        """Every rank gathers the model and generates with it: the same tokens, since the seed is the same."""
        yield from generate(self._whole_model(), prompt_ids, params)

    def _whole_model(self) -> Llama:
        with torch.device("meta"):
            model = Llama(self.config)
        model = model.to_empty(device=self.device.place)
        own = model.named_params()
        for name, whole in whole_parameters(self.parameters, self.mesh, self.config):
            own[name].data.copy_(whole)
        return model

    def figures(self) -> dict[str, Any]:
        held = sum(local(parameter).numel() for parameter in self.parameters.values())
        return {"mesh": str(self.axes), "params_per_rank": held, "comm_bytes": self.sent or {}}
