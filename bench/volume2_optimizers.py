"""Which optimizer learns most in equal steps? AdamW, Muon, Lion, Adafactor and schedule-free AdamW on one small model.

    python bench/volume2_optimizers.py --data tinyshakespeare.txt         (or: shakespeare, downloaded)

Equal for all: the model (characters of Shakespeare, 2 layers, D96, 230,000 parameters), fresh weights and order of the
data by the seed, 8 x 64 tokens per step, 400 steps, no weight decay, clipping at 1, warmup 5%, float32, one thread.
Four learning rates each, a factor of 2 apart in its usual range (Adafactor's is relative to a matrix's own scale),
on seed 0; then seeds 1 and 2 at its best.
Not equal: time and memory per step (the table has the seconds; Muon's orthogonalization shows), and the schedule, a
cosine to 10% for all but schedule-free AdamW, whose average replaces it. Betas are 0.9 and 0.99 where an optimizer has
two. Muon has AdamW for embedding and norms, at the same learning rate. A longer run or a larger model may rank them
differently.

Validation: the whole last tenth, windows of 64, nats per character. Finished runs are kept in the result file and not
repeated, so the bench may be interrupted; --fresh starts over.
Writes bench/results/volume2_optimizers.json and .png; --draw makes the picture anew from the kept figures.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _machine import fingerprint

from nano_llama.core.figures import BLUE, GREEN, ORANGE, PURPLE, RED, legend_above, log_ticks, look, panels, save
from nano_llama.core.files import read_json, write_json
from nano_llama.training import TrainSettings
from nano_llama.training.outcome import TrainingDiverged
from nano_llama.vol2_torch.trainer import Trainer

RESULT = Path(__file__).parent / "results" / "volume2_optimizers.json"
STEPS = 400
SHAPE = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 256}
COMMON = {
    "tokenizer": "char", "model": "char", **SHAPE, "batch_size": 8, "context": 64, "max_steps": STEPS,
    "weight_decay": 0.0, "evaluations": 1, "samples": 0, "precision": "fp32", "compile": "off", "num_threads": 1,
    "device": "cpu",
}  # fmt: skip
RATES = {
    "adamw": (7.5e-4, 1.5e-3, 3e-3, 6e-3),
    "muon": (3e-3, 6e-3, 1.2e-2, 2.4e-2),
    "lion": (3e-4, 6e-4, 1.2e-3, 2.4e-3),
    "adafactor": (2.5e-2, 5e-2, 0.1, 0.2),
    "schedulefree": (1.5e-3, 3e-3, 6e-3, 1.2e-2),
}
MORE_SEEDS = (1, 2)
COLORS = dict(zip(RATES, (BLUE, ORANGE, GREEN, RED, PURPLE), strict=True))


class Bench:
    """The finished runs: "optimizer lr seed" -> {val_loss (None: diverged), cpu_seconds}."""

    def __init__(self, data: str, fresh: bool):
        self.data = data
        self.runs: dict[str, dict[str, Any]] = {}
        if RESULT.exists() and not fresh:
            kept = read_json(RESULT)
            if kept["settings"] == _as_json(COMMON):
                self.runs = kept["runs"]

    def run(self, optimizer: str, lr: float, seed: int) -> float | None:
        """The validation loss of one run, from the result file where it is there."""
        name = f"{optimizer} {lr:g} {seed}"
        if name not in self.runs:
            schedule = "constant" if optimizer == "schedulefree" else "cosine"
            settings = TrainSettings(data=self.data, optimizer=optimizer, lr=lr, seed=seed, schedule=schedule, **COMMON)
            began, loss = time.process_time(), None
            with tempfile.TemporaryDirectory() as folder:
                try:
                    evaluation = Trainer(settings, Path(folder) / "run").fit().evaluation
                    assert evaluation is not None, "a run by steps is evaluated at its end"
                    loss = round(evaluation.loss, 4)
                except TrainingDiverged:
                    pass
            self.runs[name] = {"val_loss": loss, "cpu_seconds": round(time.process_time() - began, 1)}
            print(f"{name:32} {loss}  {self.runs[name]['cpu_seconds']:.0f} s", flush=True)
            self.keep()
        return self.runs[name]["val_loss"]

    def keep(self, **more: Any) -> None:
        write_json(RESULT, {**more, "settings": COMMON, "runs": self.runs, "machine": fingerprint()})

    def row(self, optimizer: str) -> dict[str, Any]:
        """All runs of one optimizer, summed up."""
        losses = {lr: loss for lr in RATES[optimizer] if (loss := self.run(optimizer, lr, 0)) is not None}
        best = min(losses, key=lambda lr: losses[lr])
        seeds = [losses[best], *(loss for seed in MORE_SEEDS if (loss := self.run(optimizer, best, seed)) is not None)]
        cost = [r["cpu_seconds"] for name, r in self.runs.items() if name.startswith(f"{optimizer} ")]
        return {
            "best_lr": best,
            "best_lr_is_inside": best not in (RATES[optimizer][0], RATES[optimizer][-1]),
            "val_loss_mean": round(statistics.mean(seeds), 4),
            "val_loss_sd": round(statistics.stdev(seeds), 4) if len(seeds) > 1 else None,
            "seeds": len(seeds),
            "cpu_seconds": round(statistics.median(cost), 1),
            "val_loss_by_lr": {f"{lr:g}": losses.get(lr) for lr in RATES[optimizer]},
        }


def _as_json(settings: dict[str, Any]) -> Any:
    return json.loads(json.dumps(settings))


def draw(rows: dict[str, dict[str, Any]]) -> None:
    figure, (left, right) = panels(["by learning rate", "at its best learning rate"], width=5.2, height=4.1)
    for name, row in rows.items():
        found = [(float(lr), loss) for lr, loss in row["val_loss_by_lr"].items() if loss is not None]
        left.semilogx(*zip(*found, strict=True), "o-", color=COLORS[name], label=name)
    left.set_xlabel("learning rate")
    left.set_ylabel("validation loss, nats per character")
    legend_above(figure, left, columns=len(rows))
    log_ticks(left.xaxis)
    order = sorted(rows, key=lambda name: rows[name]["val_loss_mean"])
    for place, name in enumerate(order):
        mean, sd = rows[name]["val_loss_mean"], rows[name]["val_loss_sd"]
        right.errorbar(place, mean, yerr=sd, fmt="o", color=COLORS[name], capsize=5)
        right.annotate(f"{mean:.3f}", (place, mean), xytext=(8, -3), textcoords="offset points")
    right.set_xticks(range(len(order)), [f"{name}\nlr {rows[name]['best_lr']:g}" for name in order])
    right.set_xlabel("optimizer")
    right.set_xlim(-0.5, len(order) - 0.3)
    right.set_ylabel("validation loss, nats per character")
    caption = (
        f"LLaMA of 2 layers, width 96, 3 heads; characters of Shakespeare; B = 8, T = 64, {STEPS} steps\n"
        f"left seed 0, right mean and standard deviation of seeds 0, {', '.join(map(str, MORE_SEEDS))}"
    )
    save(figure, RESULT.with_suffix(".png"), caption)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="shakespeare")
    parser.add_argument("--fresh", action="store_true", help="repeat the finished runs")
    parser.add_argument("--draw", action="store_true", help="only the picture, from the kept figures")
    args = parser.parse_args()
    if args.draw:
        with look():
            return draw(read_json(RESULT)["optimizers"])
    torch.set_num_threads(1)
    bench = Bench(args.data, args.fresh)
    rows = {name: bench.row(name) for name in RATES}
    bench.keep(optimizers=rows, steps=STEPS)
    with look():
        draw(rows)
    print(f"{'optimizer':14} {'best lr':>8}  {'validation, mean +- sd':24} CPU s per run")
    for name, row in sorted(rows.items(), key=lambda item: item[1]["val_loss_mean"]):
        spread = f"{row['val_loss_mean']:.4f} +- {row['val_loss_sd']:.4f}"
        edge = "" if row["best_lr_is_inside"] else " (edge)"
        print(f"{name:14} {row['best_lr']:>8g}  {spread:24} {row['cpu_seconds']:.0f}{edge}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
