"""Whole runs on a mesh through the one loop: the losses, files and checkpoints of one process."""

import shutil
from functools import cache

import numpy as np
import pytest

pytest.importorskip("torch")

from helpers.finetuning import save_chat_model, save_questions
from helpers.parallel import trainer_cases as cases
from nano_llama.formats import open_weights
from nano_llama.formats.safetensors import SafetensorsFile
from nano_llama.training.checkpoint import TENSORS, load_checkpoint
from nano_llama.training.finetune.examination import KeepBefore
from nano_llama.training.finetune.run import fit_with_report
from nano_llama.training.finetune.settings import FinetuneSettings
from nano_llama.training.metrics import read_metrics
from nano_llama.training.outcome import TrainingInterrupted
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.parallel import ParallelConfig
from nano_llama.vol2_torch.trainer import Trainer

pytestmark = pytest.mark.parallel
STEPS = 12


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def recipe(tale):
    return {
        "data": str(tale), "tokenizer": "char", "model": "tiny", "num_hidden_layers": 3, "context": 16,
        "batch_size": 8, "lr": 0.01, "max_steps": STEPS, "evaluations": 2, "log_every": 1, "samples": 1,
        "sample_tokens": 6, "device": "cpu", "precision": "fp32", "compile": "off", "num_threads": 1,
    }  # fmt: skip


def losses(run):
    return [row["train_loss"] for row in read_metrics(run / "metrics.jsonl")]


def validation(run):
    return [row["val_loss"] for row in read_metrics(run / "metrics.jsonl") if "val_loss" in row]


def same(one, other):
    assert len(losses(one)) == len(losses(other)) > 0
    assert np.abs(np.subtract(losses(one), losses(other))).max() <= 1e-5
    assert np.abs(np.subtract(validation(one), validation(other))).max() <= 1e-5
    ours, theirs = (open_weights(run) for run in (one, other))
    assert list(ours) == list(theirs)
    for name in ours:
        assert np.abs(ours[name] - theirs[name]).max() <= 2e-4, name


MESHES = [
    ("dp=2", {}),
    ("fsdp=2", {"optimizer": "muon", "accumulate": 2}),
    ("tp=2", {"ema": 0.9}),
    ("pp=2", {"optimizer": "muon", "tie_word_embeddings": False}),
    ("cp=2", {"activation_checkpointing": "full"}),
    ("pp=2", {"tie_word_embeddings": True, "z_loss": 1e-3}),
    ("fsdp=2", {"optimizer": "schedulefree", "schedule": "constant"}),
    ("pp=2", {"optimizer": "schedulefree", "schedule": "constant"}),
    ("dp=2", {"optimizer": "adafactor"}),
    ("pp=2", {"optimizer": "adafactor", "lr": 0.003}),
]


@pytest.mark.parametrize(
    ("mesh", "changes"),
    [
        pytest.param(*case, id=f"{case[0]}-{i}", marks=pytest.mark.slow if i > 6 else ())
        for i, case in enumerate(MESHES)
    ],
)
def test_a_run_on_two_processes_is_a_run_on_one(ranks, recipe, tmp_path, mesh, changes):
    settings = recipe | changes
    Trainer(TrainSettings(**settings), tmp_path / "one").fit()
    found = ranks(2).run(cases.fit, mesh=mesh, settings=settings, out=str(tmp_path / "many"))
    assert found[0] == found[1] and found[0][0] == STEPS, "all ranks have gone the same way"
    same(tmp_path / "many", tmp_path / "one")
    assert (tmp_path / "many/samples.md").read_text().split("loss")[0] == (
        (tmp_path / "one/samples.md").read_text().split("loss")[0]
    )
    row = read_metrics(tmp_path / "many/metrics.jsonl")[-1]
    assert row["mesh"] == mesh and row["comm_bytes"] and row["params_per_rank"] > 0
    assert len(row["rank_memory_bytes"]) == 2 and len(row["rank_data_stall"]) == 2
    ours, theirs = (load_checkpoint(max((tmp_path / run / "checkpoints").iterdir())) for run in ("many", "one"))
    assert set(ours.tensors) == set(theirs.tensors), f"{TENSORS} says nothing of the mesh"
    for name in theirs.tensors:
        assert ours.tensors[name].shape == theirs.tensors[name].shape, name


PRECISE = {"evaluations": 1, "samples": 0, "max_steps": 6}
LESS_PRECISE = [
    ("fsdp=2", {"precision": "bf16"}), slow("dp=2", {"precision": "bf16"}), slow("tp=2", {"precision": "bf16"}),
    slow("fsdp=2", {"compile": "on"}),  # other meshes: test_options.py
]  # fmt: skip


@pytest.mark.parametrize(("mesh", "changes"), LESS_PRECISE)
def test_in_half_precision_and_compiled(ranks, recipe, tmp_path, mesh, changes):
    settings = recipe | PRECISE | changes
    Trainer(TrainSettings(**settings), tmp_path / "one").fit()
    found = ranks(2).run(cases.fit, mesh=mesh, settings=settings, out=str(tmp_path / "many"))
    assert found[0] == found[1]
    apart = np.abs(np.subtract(losses(tmp_path / "many"), losses(tmp_path / "one"))).max()
    assert apart <= (2e-2 if "precision" in changes else 1e-5)


RESHARDED = [  # None: by one process
    ("fsdp=2", "tp=2"), ("tp=2", None), ("fsdp=2", "fsdp=2,tp=2"),
    (None, "fsdp=2"), ("dp=2", "pp=2"), ("pp=2", "cp=2"),
    ("dp=2", None), ("fsdp=2", None), ("pp=2", None), ("cp=2", None),
    ("dp=2", "dp=4"), ("fsdp=2", "fsdp=4"), ("tp=2", "dp=2,tp=2"), ("pp=2", "pp=2,fsdp=2"), ("cp=2", "cp=4"),
    ("dp=2,tp=2", "fsdp=2"), ("fsdp=4", None),
]  # fmt: skip
WITH_MUON = [  # each way of cutting a matrix once before and once after
    ("fsdp=2", "tp=2"), (None, "fsdp=2"), ("tp=2", "dp=2,tp=2"), ("pp=2", "pp=2,fsdp=2"), ("dp=2,tp=2", "fsdp=2"),
    ("fsdp=4", None),
]  # fmt: skip


@pytest.fixture(scope="module")
def resharding(ranks, recipe, tmp_path_factory):
    """run(mesh, optimizer, out, ...), stopped(mesh, optimizer), undisturbed(optimizer) -> a run's folder.

    mesh None: one process. The second was told to stop after five steps; it and the third are made once for all tests.
    """

    def run(mesh, optimizer, out, **options):
        settings = recipe | {"optimizer": optimizer, "ema": 0.5, "samples": 0}
        if mesh is None:
            return one_process(settings, out, **options)
        world_size = ParallelConfig.parse(mesh).world_size
        found = ranks(world_size).run(cases.fit, mesh=mesh, settings=settings, out=str(out), **options)
        assert all(other == found[0] for other in found)
        if "stop_at" in options:
            assert found[0] == ("TrainingInterrupted", options["stop_at"]), "told on rank 1, stopped on all"
        return out

    def one_process(settings, out, resume=False, stop_at=None):
        loop = Trainer(TrainSettings(**settings), out, resume=resume)
        if stop_at is None:
            loop.fit()
        else:
            cases.stop_after(loop, stop_at)
            with pytest.raises(TrainingInterrupted, match=f"after {stop_at}"):
                loop.fit()
        return out

    @cache
    def undisturbed(optimizer):
        return run(None, optimizer, tmp_path_factory.mktemp("whole") / "run")

    @cache
    def stopped(mesh, optimizer):
        return run(mesh, optimizer, tmp_path_factory.mktemp("stopped") / "run", stop_at=5)

    return run, stopped, undisturbed


@pytest.mark.parametrize(
    ("first", "second", "optimizer"),
    [
        *(pytest.param(*pair, "adamw", marks=pytest.mark.slow if i > 2 else ()) for i, pair in enumerate(RESHARDED)),
        *(slow(*pair, "muon") for pair in WITH_MUON),
    ],
)
def test_saved_on_one_mesh_and_resumed_on_another(resharding, tmp_path, first, second, optimizer):
    run, stopped, undisturbed = resharding
    out = shutil.copytree(stopped(first, optimizer), tmp_path / "run")
    same(run(second, optimizer, out, resume=True), undisturbed(optimizer))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["fsdp=2", "tp=2", "pp=2"])
def test_a_run_with_dropout_resumes_exactly(ranks, recipe, resharding, tmp_path, mesh):
    settings = recipe | {"dropout": 0.2, "evaluations": 0, "max_steps": 8}
    found = ranks(2).run(cases.fit, mesh=mesh, settings=settings | {"evaluations": 1}, out=str(tmp_path / "whole"))
    assert found[0] == found[1]
    out = str(tmp_path / "run")
    ranks(2).run(cases.fit, mesh=mesh, settings=settings, out=out, stop_at=3)
    settings |= {"evaluations": 1}
    ranks(2).run(cases.fit, mesh=mesh, settings=settings, out=out, resume=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole"), "the same numbers are dropped"
    without = losses(resharding[2]("adamw"))  # whose first loss is of the same weights and batch
    assert abs(losses(tmp_path / "whole")[0] - without[0]) > 1e-4


@pytest.fixture
def lessons(tmp_path):
    return {
        "data": str(save_questions(tmp_path / "questions.jsonl", 40)),
        "init_from": str(save_chat_model(tmp_path / "base")), "context": 96, "batch_size": 4, "max_steps": 6,
        "evaluations": 2, "log_every": 1, "samples": 1, "sample_tokens": 6, "lr": 0.01, "rank": 4, "device": "cpu",
        "precision": "fp32", "compile": "off", "num_threads": 1, "held_out": "none",
    }  # fmt: skip


ADAPTERS = [slow("dp=2", {}), ("fsdp=2", {"adapter": "dora"}), slow("dp=2,fsdp=2", {"accumulate": 2})]


@pytest.mark.parametrize(("mesh", "changes"), ADAPTERS)
def test_adapters(ranks, lessons, tmp_path, mesh, changes):
    settings = lessons | changes
    Trainer(FinetuneSettings(**settings), tmp_path / "one").fit()
    many = {"mesh": mesh, "settings": settings, "kind": FinetuneSettings}
    group = ranks(4 if "," in mesh else 2)
    found = group.run(cases.fit, out=str(tmp_path / "many"), **many)
    assert all(one == found[0] for one in found)
    assert np.abs(np.subtract(losses(tmp_path / "many"), losses(tmp_path / "one"))).max() <= 1e-5
    assert np.abs(np.subtract(validation(tmp_path / "many"), validation(tmp_path / "one"))).max() <= 1e-5
    ours, theirs = (SafetensorsFile(tmp_path / run / "adapter_model.safetensors") for run in ("many", "one"))
    assert list(ours) == list(theirs)
    assert max(np.abs(ours[name] - theirs[name]).max() for name in theirs) <= 2e-4
    group.run(cases.fit, out=str(tmp_path / "again"), stop_at=3, **many)
    group.run(cases.fit, out=str(tmp_path / "again"), resume=True, **many)
    assert np.abs(np.subtract(losses(tmp_path / "again"), losses(tmp_path / "one"))).max() <= 1e-5


def test_a_report_is_that_of_one_process(ranks, lessons, tmp_path):
    settings, keep = lessons | {"max_steps": 4}, KeepBefore()
    loop = Trainer(FinetuneSettings(**settings), tmp_path / "one", progress=keep)
    expected = fit_with_report(loop, keep)
    found = ranks(2).run(cases.tune, mesh="fsdp=2", settings=settings, out=str(tmp_path / "many"))
    assert found[0] == found[1]
    for (loss, answers), one in zip(found[0], (expected.before, expected.after), strict=True):
        assert loss == pytest.approx(one.validation.loss, abs=1e-5)
        assert answers == [answer.text for answer in one.answers]
    assert (tmp_path / "many/report.md").is_file() and (tmp_path / "many/before.json").is_file()


@pytest.mark.parametrize(
    ("mesh", "changes", "said"),
    [
        ("fsdp=2", {"optimizer": "adafactor"}, "fsdp=2 with optimizer"),
        ("pp=2", {"batch_size": 3}, "pp=2"), ("cp=2", {"document_mask": True}, "cp"),
    ],
)  # fmt: skip
def test_what_a_mesh_cannot_do_is_refused_by_name(ranks, recipe, tmp_path, mesh, changes, said):
    for message in ranks(2).run(cases.refused, mesh=mesh, settings=recipe | changes, out=str(tmp_path / "run")):
        assert message is not None and said in message
