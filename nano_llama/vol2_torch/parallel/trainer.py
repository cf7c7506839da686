"""Training over many processes: the run of Volume 2's trainer, spread over a mesh.

    torchrun --nproc-per-node 4 -m nano_llama train ... --mesh fsdp=2,tp=2

    with joined(settings, launch) as run:                # the others, by what torchrun has told this process
        set_up_run(run.engine, settings, out, ranks=run.ranks).fit()

The loop is the one of training/: each rank runs it, and they decide alike (training/ranks.py).
Tests: tests/parallel/test_trainer.py.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from nano_llama.core.config import LlamaConfig
from nano_llama.core.env import Launch
from nano_llama.core.errors import UserError
from nano_llama.core.init import InitialParams, check_params
from nano_llama.core.machine import allowed_cpus
from nano_llama.training.backend import Notice
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.device import resolve_device
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.parallel.config import ParallelConfig
from nano_llama.vol2_torch.parallel.cp import packed_over_cp
from nano_llama.vol2_torch.parallel.heartbeat import failing_together
from nano_llama.vol2_torch.parallel.mesh import device_of_rank, make_mesh, process_group, shared_store, stage_group
from nano_llama.vol2_torch.parallel.owner_muon import OwnerMuon
from nano_llama.vol2_torch.parallel.parallelize import parallelize
from nano_llama.vol2_torch.parallel.pp import choose_microbatches
from nano_llama.vol2_torch.parallel.strategy import MeshStrategy
from nano_llama.vol2_torch.precision import Precision
from nano_llama.vol2_torch.strategy import Parameters
from nano_llama.vol2_torch.trainer import TorchBackend
from nano_llama.vol2_torch.training_device import TorchDevice


class ProcessRanks:
    """Ranks of training/ranks.py: the processes of torch.distributed's group."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gathered(self, value: float) -> list[float]:
        found = [torch.zeros((), dtype=torch.float64) for _ in range(self.size)]
        dist.all_gather(found, torch.tensor(value, dtype=torch.float64))
        return [float(one) for one in found]


@dataclass(frozen=True)
class Mesh:
    """A Spread of vol2_torch/strategy.py: over all processes of a mesh."""

    mesh: DeviceMesh
    axes: ParallelConfig
    launch: Launch
    device: torch.device

    @property
    def size(self) -> int:
        return self.axes.world_size

    @property
    def muon(self) -> Callable[..., torch.optim.Optimizer]:
        return partial(OwnerMuon, group=stage_group(self.mesh))

    def place(self, settings: TrainSettings) -> torch.device:
        return self.device

    def threads(self, settings: TrainSettings, place: torch.device, notice: Notice) -> int:
        """The cores of a machine are divided among its processes."""
        return settings.num_threads or max(1, len(allowed_cpus()) // self.launch.local_world_size)

    def model(
        self, settings: TrainSettings, config: LlamaConfig, *given: Any
    ) -> tuple[Llama, Parameters]:  # fmt: skip
        """Without memory: each process takes its own part, of weights that are drawn or read tensor by tensor."""
        with torch.device("meta"):
            model = Llama(config)
        return model, model.named_params()

    def strategy(
        self, model: Llama, parameters: Parameters, weights: Mapping[str, np.ndarray] | None, device: TorchDevice,
        precision: Precision, settings: TrainSettings,
    ) -> MeshStrategy:  # fmt: skip
        source = InitialParams(model.config, settings.seed) if weights is None else weights
        check_params(model.config, source)
        parallel = parallelize(
            model, self.mesh, z_loss=settings.z_loss, autocast=precision.autocast, weights=source
        )  # fmt: skip
        return MeshStrategy(parallel, self.mesh, self.axes, model.config, device)


@dataclass(frozen=True)
class MeshEngine:
    """An Engine of training/backend.py: TorchBackend on a mesh."""

    spread: Mesh

    def check_settings(self, settings: TrainSettings) -> None:
        """Raise UserError for what a mesh cannot do, by name."""
        TorchBackend.check_settings(settings)
        axes = self.spread.axes
        for name, fits, hint in (
            ("adapter", settings.lora is None, "Train adapters in one process; --adapter none trains all weights."),
            ("dropout", settings.dropout == 0.0, "Which numbers it drops would depend on the mesh: leave it out."),
            (
                "optimizer", settings.optimizer in ("adamw", "muon", "lion"),
                "On a mesh there are adamw, muon and lion.",
            ),
            ("precision", settings.precision != "fp16" or axes.pp == 1, "Over pp use bf16 or fp32."),
        ):  # fmt: skip
            if not fits:
                raise UserError(f"mesh = {str(axes)!r} with {name} = {getattr(settings, name)!r}.", hint=hint)
        if axes.pp > 1:
            choose_microbatches(-(-settings.batch_size // (axes.dp * axes.fsdp)), axes.pp)
        if axes.cp > 1 and settings.document_mask:
            raise packed_over_cp()

    def create(
        self, settings: TrainSettings, config: LlamaConfig, weights: Mapping[str, np.ndarray] | None, notice: Notice,
        *, adapter: Mapping[str, np.ndarray] | None = None,
    ) -> TorchBackend:  # fmt: skip
        return TorchBackend.create(settings, config, weights, notice, adapter=adapter, spread=self.spread)


@dataclass(frozen=True)
class Joined:
    """What `set_up_run` takes for a run on a mesh. network: one line for the user."""

    engine: MeshEngine
    ranks: ProcessRanks
    network: str


@contextmanager
def joined(settings: TrainSettings, launch: Launch) -> Iterator[Joined]:
    """Join the processes that torchrun has started, until the block ends.

    Raises UserError where the mesh has another size, EnvironmentFault where they do not find each other.
    """
    axes = ParallelConfig.parse(settings.mesh) if settings.mesh else ParallelConfig(dp=launch.world_size)
    axes.check_world_size(launch.world_size)
    device = device_of_rank(resolve_device(settings.device), launch)
    timeout = settings.mesh_timeout
    store = shared_store(launch)
    with (
        process_group(launch, device, timeout=timeout, store=store) as network,
        failing_together(store, launch, timeout=timeout),
    ):
        spread = Mesh(make_mesh(axes, device), axes, launch, device)
        yield Joined(MeshEngine(spread), ProcessRanks(), network)
