"""Training on a card: tokens/s of whole runs of the Trainer, as present defaults take them and by the paths that are
opted into, beside transformers' model trained the usual way in the same process.

A run is timed between two of its steps, many steps apart, by the wall clock: what the loop does between steps counts,
compiling and the first steps do not. MFU counts useful FLOPs (nano_llama/training/flops.py) against the matrix peak
that is measured in the same process.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import torch

from gpu_sections.measure import matrix_peak, peak_gb, start_afresh, synchronize
from gpu_sections.peers import their_rate
from gpu_sections.report import Place, Report
from gpu_sections.runs import GRAPH, TINY, TRITON, possible, random_text, settings_of
from gpu_sections.table import MFU_1B, MFU_350M, NANO_RATE, SHAKESPEARE_LOSS, Bar
from nano_llama import LlamaConfig
from nano_llama.core.env import cache_dir
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.data.dataset import Dataset
from nano_llama.training import TrainSettings
from nano_llama.training.callback import Callback
from nano_llama.training.flops import flops_per_token
from nano_llama.training.metrics import read_metrics
from nano_llama.training.presets import training_preset
from nano_llama.training.record import StepRecord
from nano_llama.vol2_torch import Llama
from nano_llama.vol2_torch.evaluate import evaluate_model
from nano_llama.vol2_torch.trainer import Trainer

T = TypeVar("T")
MEMORY_ERRORS = (torch.OutOfMemoryError, UserError, EnvironmentFault)  # of the card, or of the look ahead at its memory
ROOT = Path(__file__).parents[2]
WARM_UP = 8  # steps: compiling comes before the first, recording after the second
PATHS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "attention = triton": {"attention": "triton"},
    "attention, kernels = triton": TRITON,
    "execution = graph": GRAPH,
    "attention, kernels = triton, execution = graph": {**TRITON, **GRAPH},
}


class Enough(Exception):
    """The run has been timed."""


class Stopwatch(Callback):
    """Times a run from one step to another, and ends it there."""

    def __init__(self, first: int, last: int):
        self.first, self.last = first, last
        self.began = self.tokens = 0.0
        self.notices: list[str] = []

    def stepped(self, record: StepRecord) -> None:
        if record.step == self.first:
            self.began, self.tokens = time.perf_counter(), record.tokens
        elif record.step == self.last:
            self.rate = (record.tokens - self.tokens) / (time.perf_counter() - self.began)
            raise Enough

    def notice(self, text: str) -> None:
        self.notices.append(text)


def rate_of(place: Place, dataset: Dataset, settings: TrainSettings, steps: int) -> tuple[float, LlamaConfig, str]:
    """tokens/s of a run over so many steps after the warm-up, its model's config, and what it gave notice of."""
    first = place.pick(WARM_UP, 3)
    watch = Stopwatch(first, first + steps)
    out = place.scratch / f"run-{time.monotonic_ns()}"
    with mock.patch.object(Llama, "init", drawn_on_the_card):
        trainer = Trainer(settings.replace(max_steps=first + steps + 1), out, dataset=dataset, progress=watch)
    with suppress(Enough):
        trainer.fit()
    synchronize(place.device)
    return watch.rate, trainer.config, " ".join(watch.notices)


def drawn_on_the_card(config: LlamaConfig, seed: int = 0, device: Any = "cpu", dtype: torch.dtype = torch.float32):
    """Llama.init, but for the generator: NumPy would take longer for 1B than all that is timed."""
    with torch.device("meta"):
        model = Llama(config)
    model = model.to(dtype).to_empty(device=device)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.0 if parameter.dim() == 1 else 0.02)
    return model


def largest(batches: Iterable[int], attempt: Callable[[int], T]) -> tuple[int, T]:
    """The first batch size that fits the card's memory, and what came of it."""
    tried = list(batches)
    for batch in tried:
        with suppress(*(MEMORY_ERRORS if batch != tried[-1] else ())):
            return batch, attempt(batch)
        start_afresh(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    raise AssertionError("no batch size was given")


def compare(
    place: Place, report: Report, preset: str, vocab_size: int, steps: int, batches: tuple[int, ...],
    paths: dict[str, dict[str, Any]], bar: Bar | None, peers: bool = True,
) -> None:  # fmt: skip
    """Every path of ours that there is, and transformers; the bar is for the fastest of ours."""
    device, steps = place.device, place.pick(steps, 2)
    dataset = random_text(place, vocab_size)
    peak = matrix_peak(device)
    report.note("matrix peak TFLOP/s", peak / 1e12)
    best, config, context = 0.0, None, 0
    for name, changes in possible(place, paths).items():
        start_afresh(device)
        with report.attempt(f"{preset}, {name}"):
            settings = settings_of(place, preset, **changes)
            batch, (rate, config, notices) = largest(
                place.pick(batches, (2,)),
                lambda batch, s=settings: rate_of(place, dataset, s.replace(batch_size=batch), steps),
            )
            context = settings.context
            report.note(name, notices)
            best = max(best, show(place, report, f"{preset}, {name}", rate, (batch, context), config, peak))
    if bar is not None:
        report.row(f"training {preset}: MFU of the fastest", best, "of the matrix peak", bar)
    if peers and config is not None:
        start_afresh(device)
        with report.attempt(f"{preset}, transformers"):
            batch, rate = largest(
                place.pick(batches, (2,)), lambda batch: their_rate(place, config, batch, context, steps)
            )
            show(place, report, f"{preset}, transformers eager", rate, (batch, context), config, peak)


def show(
    place: Place, report: Report, what: str, rate: float, shape: tuple[int, int], config: LlamaConfig, peak: float
) -> float:
    """A row of tokens/s. shape: (B,T). -> its MFU."""
    mfu = rate * flops_per_token(config, shape[1]) / peak
    beside = f"{shape[0]} x {shape[1]} a pass, MFU {mfu:.3f}, {peak_gb(place.device):.1f} GB"
    report.row(f"training {what}", rate, "tokens/s", beside=beside)
    return mfu


def nano(place: Place, report: Report) -> None:
    paths = {name: PATHS[name] for name in PATHS if name != "attention = triton"}
    compare(place, report, "nano", 4096, 300, (32,), paths, None)
    ours = [row for row in report.rows if "transformers" not in row["what"]]
    best = max(ours, key=lambda row: row["value"], default={"value": 0.0, "what": "none ran"})
    report.row("training nano: the fastest of ours", best["value"], "tokens/s", NANO_RATE, best["what"])


def train_350m(place: Place, report: Report) -> None:
    paths = {name: {"accumulate": 1, **PATHS[name]} for name in PATHS if name != "execution = graph"}
    compare(place, report, "350m", 49152, 25, (16, 8), paths, MFU_350M)


def train_1b(place: Place, report: Report) -> None:
    """The preset recomputes cheap activations for the sake of memory; without that fewer rows may fit."""
    paths = {
        "defaults": {},
        "nothing recomputed": {"activation_checkpointing": "none"},
        "nothing recomputed, triton": {"activation_checkpointing": "none", **TRITON},
    }
    paths = {name: {"accumulate": 2, **changes} for name, changes in paths.items()}
    compare(place, report, "1b", 32000, 8, (8, 4), paths, MFU_1B)


def compiled_350m(place: Place, report: Report) -> None:
    settings = settings_of(place, "350m")
    config = settings.llama_config(place.pick(49152, 64))
    batch, rate = largest(
        place.pick((16, 8), (2,)),
        lambda batch: their_rate(place, config, batch, settings.context, place.pick(15, 2), compiled=True),
    )
    peak = matrix_peak(place.device)
    show(place, report, "350m, transformers compiled", rate, (batch, settings.context), config, peak)


SHORT = {"max_steps": 6, "evaluations": 2, "samples": 0}  # a rehearsal on Shakespeare


# -- Shakespeare ------------------------------------------------------------------------------------------------------


def shakespeare_text(place: Place) -> tuple[str, bool]:
    """Where the text is, and whether it is Shakespeare's."""
    named = "tinyshakespeare.txt"
    places = [place.shakespeare, *(above / "shared" / "data" / named for above in (ROOT, *ROOT.parents[:2])),
              *cache_dir().rglob(named)]  # fmt: skip
    found = next((path for path in places if path and path.is_file()), None)
    return (str(found), True) if found else ("stdlib", False)


def shakespeare(place: Place, report: Report) -> None:
    """The preset as it is, compiling and evaluations included; the loss is that of the model which the run leaves."""
    data, right = shakespeare_text(place)
    if place.rehearse:
        some = place.scratch / "some.txt"
        some.write_text(Path(data).read_text()[:5000] if right else "To be, or not to be? " * 200)
        data = str(some)
    report.note(
        "text", "tinyshakespeare.txt" if right else "the standard library's source, as no Shakespeare was found"
    )
    values = {**training_preset("shakespeare-gpu"), "data": data, "device": "cuda"}
    if place.rehearse:
        values |= {**TINY, **SHORT}
    out = place.scratch / "shakespeare"
    began = time.monotonic()
    Trainer(TrainSettings.from_json(values), out, start=began).fit()
    seconds = time.monotonic() - began
    rows = read_metrics(out / "metrics.jsonl")
    curve = [(round(row["elapsed_s"], 1), round(row["val_loss"], 4)) for row in rows if "val_loss" in row]
    report.note("validation", curve)
    report.note("tokens/s", rows[-1]["tokens"] / rows[-1]["elapsed_s"])
    loss = evaluate_model(out, data, context=int(values["context"]), device=str(place.device)).loss
    bar = SHAKESPEARE_LOSS if right else None
    report.row("preset shakespeare-gpu, validation loss of its model", loss, "nats per character", bar,
               beside=f"{seconds:.1f} s; nanoGPT 1.4697 in 3 minutes on an A100")  # fmt: skip
    report.row("the same, seconds", seconds, "s", Bar(at_most=60.0))
