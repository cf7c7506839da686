"""Training over many processes: the run of Volume 2's trainer, spread over a mesh.

    torchrun --nproc-per-node 4 -m nano_llama train ... --mesh fsdp=2,tp=2

    with joined(settings, launch) as run:                # the others, by what torchrun has told this process
        set_up_run(run.engine, settings, out, ranks=run.ranks).fit()

The loop is the one of training/: each rank runs it, and they decide alike (training/ranks.py).
Tests: tests/parallel/test_trainer.py.
"""

import time
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
from nano_llama.core.init import InitialParams, check_params
from nano_llama.core.machine import allowed_cpus
from nano_llama.core.vision.config import ModelConfig
from nano_llama.training.backend import Notice
from nano_llama.training.ranks import Ranks, of_first
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.device import resolve_device
from nano_llama.vol2_torch.finetune.start import model_to_train
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.parallel.config import ParallelConfig
from nano_llama.vol2_torch.parallel.heartbeat import failing_together
from nano_llama.vol2_torch.parallel.mesh import (
    TIMEOUT,
    device_of_rank,
    make_mesh,
    process_group,
    shared_store,
    stage_group,
)
from nano_llama.vol2_torch.parallel.owner_muon import OwnerMuon
from nano_llama.vol2_torch.parallel.parallelize import parallelize
from nano_llama.vol2_torch.parallel.refusals import check_mesh
from nano_llama.vol2_torch.parallel.strategy import MeshStrategy
from nano_llama.vol2_torch.precision import Precision
from nano_llama.vol2_torch.strategy import Parameters
from nano_llama.vol2_torch.trainer import TorchBackend
from nano_llama.vol2_torch.training_device import TorchDevice


class ProcessRanks:
    """Ranks of training/ranks.py: the processes of torch.distributed's group."""

    def __init__(self, launch: Launch) -> None:
        self.rank, self.size, self.first_of_machine = launch.rank, launch.world_size, launch.local_rank == 0

    def gathered(self, value: float) -> list[float]:
        found = [torch.zeros((), dtype=torch.float64) for _ in range(self.size)]
        dist.all_gather(found, torch.tensor(value, dtype=torch.float64))
        return [float(one) for one in found]


def name_of_attempt(ranks: Ranks) -> str:
    """The same on all ranks, and new each time that processes are started. How often that was, each machine's torchrun
    counts for itself: one that has come later counts from zero."""
    return str(of_first(ranks, time.time()))


@dataclass(frozen=True)
class Mesh:
    """A Spread of vol2_torch/strategy.py: over all processes of a mesh."""

    mesh: DeviceMesh
    axes: ParallelConfig
    launch: Launch
    device: torch.device
    timeout: float = TIMEOUT  # seconds that a rank waits for the others in one operation

    @property
    def size(self) -> int:
        return self.axes.world_size

    @property
    def muon(self) -> Callable[..., torch.optim.Optimizer]:
        return partial(OwnerMuon, group=stage_group(self.mesh, self.timeout))

    def place(self, settings: TrainSettings) -> torch.device:
        return self.device

    def threads(self, settings: TrainSettings, place: torch.device, notice: Notice) -> int:
        """The cores of a machine are divided among its processes."""
        return settings.num_threads or max(1, len(allowed_cpus()) // self.launch.local_world_size)

    def model(
        self, settings: TrainSettings, config: LlamaConfig, weights: Mapping[str, np.ndarray] | None, *given: Any
    ) -> tuple[Any, Parameters]:
        """Without memory: each process takes its own part, of weights that are drawn or read tensor by tensor.

        Beneath an adapter it is whole in each at first, as its layers are made from the weights.
        """
        if settings.lora is not None:
            return model_to_train(settings, config, weights, *given)
        with torch.device("meta"):
            model = Llama(config)
        return model, model.named_params()

    def strategy(
        self, model: Llama, parameters: Parameters, weights: Mapping[str, np.ndarray] | None, device: TorchDevice,
        precision: Precision, settings: TrainSettings,
    ) -> MeshStrategy:  # fmt: skip
        source, rounded = None, None
        if settings.lora is None:
            rounded = None if precision.dtype == torch.float32 else precision.dtype
            source = InitialParams(model.config, settings.seed) if weights is None else weights
            check_params(model.config, source)
        parallel = parallelize(
            model, self.mesh, z_loss=settings.z_loss, autocast=precision.autocast, weights=source, products=rounded,
        )  # fmt: skip
        return MeshStrategy(
            parallel, self.mesh, self.axes, model, list(parameters), device, precision,
            draws=draws_in_training(settings),
        )  # fmt: skip


def draws_in_training(settings: TrainSettings) -> bool:
    """Whether a training step draws random numbers."""
    return settings.dropout > 0.0 or (settings.lora is not None and settings.lora.dropout > 0.0)


@dataclass(frozen=True)
class MeshEngine:
    """An Engine of training/backend.py: TorchBackend on a mesh."""

    spread: Mesh

    def check_settings(self, settings: TrainSettings) -> None:
        """Raise UserError for what a mesh cannot do, by name."""
        TorchBackend.check_settings(settings)
        check_mesh(settings, self.spread.axes)

    def create(
        self, settings: TrainSettings, config: ModelConfig, weights: Mapping[str, np.ndarray] | None, notice: Notice,
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
    store, ranks = shared_store(launch), ProcessRanks(launch)
    with (
        process_group(launch, device, timeout=timeout, store=store) as network,
        failing_together(store, launch, attempt=name_of_attempt(ranks), timeout=timeout),
    ):
        spread = Mesh(make_mesh(axes, device, timeout=timeout), axes, launch, device, timeout)
        yield Joined(MeshEngine(spread), ranks, network)
