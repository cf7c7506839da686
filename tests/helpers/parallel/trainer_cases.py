"""Cases of tests/parallel/test_trainer.py: a whole run, by the one loop, on a mesh."""

import torch

from nano_llama.core.env import Launch
from nano_llama.core.errors import UserError
from nano_llama.training.finetune.examination import KeepBefore
from nano_llama.training.finetune.run import fit_with_report
from nano_llama.training.finetune.settings import FinetuneSettings
from nano_llama.training.settings import TrainSettings
from nano_llama.training.setup import set_up_run
from nano_llama.vol2_torch.parallel.config import ParallelConfig
from nano_llama.vol2_torch.parallel.trainer import Mesh, MeshEngine, ProcessRanks


def engine_and_ranks(here, mesh):
    launch = Launch(
        rank=here.rank, world_size=here.world_size, local_rank=here.rank, local_world_size=here.world_size, address=""
    )
    spread = Mesh(here.mesh(mesh), ParallelConfig.parse(mesh), launch, torch.device("cpu"))
    return MeshEngine(spread), ProcessRanks(launch)


def stop_after(loop, step):
    """As if it were told to, while it takes this step."""
    update = loop.backend.update

    def told(lr):
        if loop.state.step + 1 == step:
            loop.interrupt.signal = 15
        update(lr)

    loop.backend.update = told


def fit(here, mesh, settings, out, resume=False, stop_at=None, kind=TrainSettings):
    """A run -> its steps and last losses. stop_at: the step after which rank 1 is told to stop."""
    engine, ranks = engine_and_ranks(here, mesh)
    loop = set_up_run(engine, kind(**{**settings, "mesh": mesh}), out, resume=resume, ranks=ranks)
    if stop_at is not None and here.rank == 1:
        stop_after(loop, stop_at)
    try:
        result = loop.fit()
    except Exception as error:  # an interrupted run has been saved
        if stop_at is None:
            raise
        return type(error).__name__, loop.state.step
    return result.steps, result.train_loss, result.evaluation.loss


def tune(here, mesh, settings, out):
    """Fine-tuning with its report -> what was found before and after, without the seconds."""
    keep, (engine, ranks) = KeepBefore(), engine_and_ranks(here, mesh)
    loop = set_up_run(
        engine, FinetuneSettings(**{**settings, "mesh": mesh}), out, ranks=ranks,
        progress=keep if here.rank == 0 else None,
    )  # fmt: skip
    done = fit_with_report(loop, keep)
    return [(found.validation.loss, [answer.text for answer in found.answers]) for found in (done.before, done.after)]


def refused(here, mesh, settings, out):
    engine, ranks = engine_and_ranks(here, mesh)
    try:
        set_up_run(engine, TrainSettings(**{**settings, "mesh": mesh}), out, ranks=ranks)
    except UserError as error:
        return error.message
    return None
