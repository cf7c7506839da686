"""A run whose steps are recorded and that computes ahead is the eager run, bit for bit, whatever happens in it.

The recordings are of operations, as there is no GPU here: helpers/recorded_ops.py.
"""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers.recorded_ops import RecordingLauncher  # noqa: E402
from helpers.training import kill_after  # noqa: E402
from nano_llama.core.errors import UserError  # noqa: E402
from nano_llama.training.backend import StepResult  # noqa: E402
from nano_llama.training.callback import Callback  # noqa: E402
from nano_llama.training.finetune.settings import FinetuneSettings  # noqa: E402
from nano_llama.training.metrics import MEASURED, read_metrics  # noqa: E402
from nano_llama.training.outcome import TrainingDiverged  # noqa: E402
from nano_llama.vol2_torch import graph_step, loss  # noqa: E402
from nano_llama.vol2_torch.graph_step import GraphStep, check_graph_settings  # noqa: E402
from nano_llama.vol2_torch.launcher import WARM_UPS  # noqa: E402
from nano_llama.vol2_torch.step import EagerStep  # noqa: E402
from nano_llama.vol2_torch.trainer import TorchBackend, Trainer  # noqa: E402


@pytest.fixture(autouse=True)
def recording(monkeypatch):
    monkeypatch.setattr(graph_step, "PlainLauncher", RecordingLauncher)


class Ears(Callback):
    def __init__(self):
        self.heard = []

    def notice(self, text):
        self.heard.append(text)


def rows(folder):
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in read_metrics(folder / "metrics.jsonl")]


def state(trainer):
    """All that the next step depends on, as bytes."""
    backend = trainer.backend
    tensors = {**backend.weights(), **backend.training_tensors()}
    return {name: np.asarray(array).tobytes() for name, array in tensors.items()}, trainer.state.to_json()


def same(one, other):
    (tensors, json), (others, other_json) = state(one), state(other)
    assert set(tensors) == set(others) and json == other_json
    assert [name for name in tensors if tensors[name] != others[name]] == []
    assert rows(one.folder.path) == rows(other.folder.path)


def both(settings, out, spoil=lambda trainer: None):
    """The same run twice, eager and recorded."""
    trainers = []
    for execution in ("eager", "graph"):
        trainer = Trainer(settings.replace(execution=execution), out / execution, progress=Ears())
        spoil(trainer)
        trainers.append(trainer)
        trainer.fit()
    return trainers


ALL_AT_ONCE = {
    "accumulate": 2, "dropout": 0.2, "ema": 0.9, "z_loss": 1e-3, "clip": 0.1, "document_mask": True, "evaluations": 4,
    "samples": 1, "sample_tokens": 4,
}  # fmt: skip
KINDS = [{}, ALL_AT_ONCE, {"precision": "bf16", "clip": 0.0}, {"precision": "fp16"}, {"optimizer": "adafactor"}]
KINDS += [{"optimizer": "muon", "ema": 0.9}, {"optimizer": "lion"}, {"activation_checkpointing": "full"}]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind) or "usual")
def test_the_same_bits(recipe, tmp_path, kind, monkeypatch):
    optimizer = kind.get("optimizer", "adamw")
    if optimizer in ("muon", "lion"):  # with a tensor they round a product once more: optim/scaled.py
        update = EagerStep.update
        monkeypatch.setattr(EagerStep, "update", lambda self, lr: update(self, torch.tensor(lr, dtype=torch.float64)))
    eager, graph = both(recipe.replace(**kind), tmp_path)
    same(eager, graph)
    assert not eager.callback.heard and not graph.callback.heard, "nothing fell back"
    step = graph.backend.step
    assert isinstance(step, GraphStep) and step.launcher.recordings == (1 if optimizer == "adafactor" else 2)


def test_chunks_of_logits_wait_for_nothing(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4096)
    eager, graph = both(recipe.replace(z_loss=1e-3, document_mask=True), tmp_path)
    assert graph.backend.plain_loss is loss.chunked_head_loss and not graph.callback.heard
    same(eager, graph)


def test_a_kept_number_of_the_host_is_noticed(recipe, tmp_path, monkeypatch):
    """That these tests can fail: with a learning rate that is the host's, the recording keeps the one of its step."""

    def update(self, lr):
        for group in self.optimizers[0].param_groups:
            group["lr"] = lr
        self._update()

    monkeypatch.setattr(GraphStep, "update", update)
    eager, graph = both(recipe, tmp_path)
    kept = [row["train_loss"] for row in rows(graph.folder.path)]
    expected = [row["train_loss"] for row in rows(eager.folder.path)]
    assert kept[: WARM_UPS + 2] == expected[: WARM_UPS + 2] and kept[WARM_UPS + 3 :] != expected[WARM_UPS + 3 :]


def test_what_waits_cannot_be_recorded_and_the_run_goes_on(recipe, tmp_path, monkeypatch):
    gradient = GraphStep._compute_gradient

    def waiting(self):
        gradient(self)
        assert math.isfinite(self.figures[-1].item())

    monkeypatch.setattr(GraphStep, "_compute_gradient", waiting)
    eager, graph = both(recipe, tmp_path)
    same(eager, graph)
    (notice,) = graph.callback.heard
    assert "cannot be recorded as a graph (operation not permitted" in notice and "_local_scalar_dense" in notice


def faults(*faults_at):
    """Let the results of these steps, counted by the gradients computed, be (loss, norm)."""

    def spoil(trainer):
        step, found = trainer.backend.step, dict(faults_at)
        good, count = step.result, [0]

        def result():
            count[0] += 1
            figures = good()
            return StepResult(*found[count[0]]) if count[0] in found else figures

        step.result = result

    return spoil


NAN, SPIKE = (math.nan, 1.0), (30.0, 1.0)


@pytest.mark.parametrize("policy", ["report", "skip"])
def test_bad_batches_are_treated_as_by_an_eager_run(recipe, tmp_path, policy):
    settings = recipe.replace(on_nan="skip", on_spike=policy, max_steps=64, dropout=0.1, ema=0.9, log_every=1)
    at = ((2, NAN), (3, NAN), (9, (3.0, math.inf)), (60, SPIKE), (61, NAN), (63, SPIKE))
    eager, graph = both(settings, tmp_path, faults(*at))
    same(eager, graph)
    assert eager.state.watchdog.skipped == (6 if policy == "skip" else 4)
    assert eager.callback.heard == [text.replace("/graph/", "/eager/") for text in graph.callback.heard]
    kept = [sorted(path.name for path in (t.folder.path / "bad_batches").iterdir()) for t in (eager, graph)]
    assert kept[0] == kept[1] and len(kept[0]) >= 8
    for name in kept[0]:
        one, other = (t.folder.path / "bad_batches" / name for t in (eager, graph))
        if name.endswith(".npz"):
            assert all(np.array_equal(np.load(one)[key], np.load(other)[key]) for key in ("tokens", "targets"))
        else:
            assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(("fault", "settings"), [(NAN, {"on_nan": "stop"}), (SPIKE, {"on_spike": "stop"})])
def test_a_run_stops_where_an_eager_one_does(recipe, tmp_path, fault, settings):
    recipe = recipe.replace(max_steps=60, evaluations=6, **settings)
    ended = []
    for execution in ("eager", "graph"):
        trainer = Trainer(recipe.replace(execution=execution), tmp_path / execution)
        faults((55, fault))(trainer)
        with pytest.raises(TrainingDiverged, match="step 55") as error:
            trainer.fit()
        ended.append((trainer, str(error.value).replace(execution, "")))
    (eager, told), (graph, told_too) = ended
    assert told == told_too and eager.state == graph.state and rows(eager.folder.path) == rows(graph.folder.path)
    resumed = [Trainer(t.settings, t.folder.path, resume=True) for t in (eager, graph)]
    assert [t.resumed_at for t in resumed] == [50, 50]
    same(*resumed)


def test_killed_and_resumed(recipe, tmp_path):
    """Checkpoints are taken while the next gradient is computed: neither its batches nor its dropout count."""
    settings = recipe.replace(**ALL_AT_ONCE, execution="graph", checkpoint_minutes=0.0, max_steps=8)
    whole = Trainer(settings, tmp_path / "whole")
    whole.fit()
    for step in (1, 5):
        trainer = Trainer(settings, tmp_path / f"run{step}")
        kill_after(trainer, step)
        torch.manual_seed(99)  # whatever happened in between
        resumed = Trainer(settings, tmp_path / f"run{step}", resume=True)
        assert resumed.resumed_at == step
        resumed.fit()
        same(whole, resumed)


def test_an_eager_run_is_resumed_with_graphs(recipe, tmp_path):
    settings = recipe.replace(dropout=0.2, evaluations=4)
    whole = Trainer(settings, tmp_path / "whole")
    whole.fit()
    kill_after(Trainer(settings, tmp_path / "run"), 7)
    resumed = Trainer(settings.replace(execution="graph"), tmp_path / "run", resume=True)
    assert isinstance(resumed.backend.step, GraphStep)
    resumed.fit()
    same(whole, resumed)


def test_addresses_stay(recipe, tmp_path):
    """Evaluations put the average in the weights' place, and checkpoints read all: afterwards each is where it was."""
    settings = recipe.replace(execution="graph", ema=0.9, evaluations=6, checkpoint_minutes=0.0)
    trainer = Trainer(settings, tmp_path / "run")
    backend, seen = trainer.backend, []
    begin = backend.step.begin

    def watched(batches, scale):
        begin(batches, scale)
        tensors = [*backend.parameters.values(), *(p.grad for p in backend.parameters.values())]
        tensors += [value for state in backend.optimizers[0].state.values() for value in state.values()]
        seen.append([tensor.data_ptr() for tensor in tensors])

    backend.step.begin = watched
    trainer.fit()
    assert len(seen) == settings.max_steps
    assert all(addresses == seen[WARM_UPS] for addresses in seen[WARM_UPS:])


def test_batches_are_copied_once_and_before_they_are_needed(recipe, tmp_path, monkeypatch):
    """Also where some are skipped; at the end one step's are there that no step will need."""
    events = []

    class Watching(RecordingLauncher):
        def put(self, arrays):
            events.append("copy")
            return super().put(arrays)

        def fetch(self):
            events.append("fetch")
            return super().fetch()

    monkeypatch.setattr(graph_step, "PlainLauncher", Watching)
    settings = recipe.replace(execution="graph", max_steps=6, on_nan="skip", evaluations=0)
    Trainer(settings, tmp_path / "run").fit()
    assert events == ["copy", "fetch", *["copy", "copy", "fetch"], *["copy", "fetch"] * 4]
    events.clear()
    trainer = Trainer(settings, tmp_path / "skipped")
    faults((3, NAN))(trainer)
    trainer.fit()
    assert events.count("copy") == 7 + 1 and trainer.state.data_position == 7


def test_what_is_refused(recipe):
    graph = recipe.replace(execution="graph")
    for settings, place, match in (
        (graph, torch.device("mps"), "device = mps"),
        (graph.replace(mesh="dp=2"), torch.device("cpu"), "mesh = dp=2"),
        (FinetuneSettings(data="x.jsonl", init_from="x", execution="graph"), torch.device("cpu"), "examples"),
    ):
        with pytest.raises(UserError, match=match) as error:
            check_graph_settings(settings, place)
        assert "--execution eager" in error.value.hint
    TorchBackend.check_settings(graph)
