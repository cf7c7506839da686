"""Volume 1 and Volume 2 train the same model on the same batches: do their curves agree?

    python bench/volume1_vs_volume2.py --data tinyshakespeare.txt        (or: shakespeare, which downloads it)

Characters of Shakespeare at nanoGPT's CPU shape: 4 layers, 4 heads, width 128, context 64, batches of 12, 2,000 steps,
float32, the same fresh weights. Bars: every training loss of the first 100 steps within 1e-3 nats, the final validation
losses within 1%. Writes bench/results/volume1_vs_volume2.json and .png, and the curves beside them (.csv), from which
--draw makes the picture anew; the last line printed is the JSON's summary.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _machine import fingerprint

from nano_llama.core.figures import BLUE, GREY, ORANGE, count_ticks, look, panels, save
from nano_llama.core.files import write_json
from nano_llama.training import TrainingLoop, TrainSettings
from nano_llama.training.metrics import read_metrics
from nano_llama.vol1_numpy.trainer import Trainer as HandWritten
from nano_llama.vol2_torch.trainer import Trainer as Autograd

RESULTS = Path(__file__).parent / "results"
CURVES = RESULTS / "volume1_vs_volume2.csv"
COLUMNS = ("step", "train_loss", "difference", "val_loss_volume1", "val_loss_volume2")
TRAINERS: dict[str, Callable[..., TrainingLoop]] = {"numpy": HandWritten, "torch": Autograd}
EARLY, EARLY_BAR, FINAL_BAR = 100, 1e-3, 0.01


def train(engine: str, data: str, steps: int, threads: int, out: Path) -> tuple[list[dict], float]:
    """-> the rows of metrics.jsonl, one per step, and seconds."""
    settings = TrainSettings(
        data=data, tokenizer="char", model="char", batch_size=12, context=64, lr=1e-3, final_lr=0.1, max_steps=steps,
        log_every=1, evaluations=10, num_threads=threads, device="cpu", engine=engine, checkpoint_minutes=60.0,
        precision="fp32",  # as Volume 1's: "auto" is bf16 on processors that multiply it
    )  # fmt: skip
    began = time.perf_counter()
    TRAINERS[engine](settings, out).fit()
    return read_metrics(out / "metrics.jsonl"), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="shakespeare")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draw", action="store_true", help="only the picture, from the kept curves")
    args = parser.parse_args()
    if args.draw:
        return draw()
    with tempfile.TemporaryDirectory() as folder:
        runs = {e: train(e, args.data, args.steps, args.threads, Path(folder) / e) for e in TRAINERS}
    (ours, our_seconds), (theirs, their_seconds) = runs["numpy"], runs["torch"]

    a, b = (np.array([row["train_loss"] for row in rows]) for rows in (ours, theirs))
    apart = np.abs(a - b)
    finals = [next(row["val_loss"] for row in reversed(rows) if "val_loss" in row) for rows in (ours, theirs)]
    result = {
        "steps": args.steps,
        "largest_difference_first_100_steps": float(apart[:EARLY].max()),
        "largest_difference": float(apart.max()),
        "val_loss_volume1": finals[0],
        "val_loss_volume2": finals[1],
        "val_loss_relative_difference": abs(finals[0] - finals[1]) / finals[1],
        "seconds_volume1": our_seconds,
        "seconds_volume2": their_seconds,
        "tokens_per_second_volume1": float(np.median([row["tokens_per_second"] for row in ours])),
        "tokens_per_second_volume2": float(np.median([row["tokens_per_second"] for row in theirs])),
    }
    result["passed"] = bool(
        result["largest_difference_first_100_steps"] <= EARLY_BAR
        and result["val_loss_relative_difference"] <= FINAL_BAR
    )
    with CURVES.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for one, other, difference in zip(ours, theirs, apart, strict=True):
            losses = [f"{row['val_loss']:.5f}" if "val_loss" in row else "" for row in (one, other)]
            table.writerow([one["step"], f"{one['train_loss']:.4f}", f"{difference:.2e}", *losses])
    draw()
    result["threads"] = args.threads
    write_json(RESULTS / "volume1_vs_volume2.json", {**result, "machine": fingerprint()})
    for key, value in result.items():
        print(f"{key:36} {value:.6g}" if isinstance(value, float) else f"{key:36} {value}")
    print(json.dumps(result))


def draw() -> None:
    """The kept curves, left the losses and right how far they are apart."""
    with CURVES.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    with look():
        titles = ["the same model, trained twice", "how far the training losses are apart"]
        figure, (left, right) = panels(titles, width=5.4)
        left.plot(steps, [float(row["train_loss"]) for row in rows], color=GREY, lw=0.5, label="training, both")
        sides = (("volume1", BLUE, "-", "Volume 1, NumPy by hand"), ("volume2", ORANGE, "--", "Volume 2, autograd"))
        for side, color, dashed, name in sides:
            val = [(int(row["step"]), float(row[f"val_loss_{side}"])) for row in rows if row[f"val_loss_{side}"]]
            left.plot(*zip(*val, strict=True), "o" + dashed, color=color, label=f"{name}: {val[-1][1]:.4f}")
        left.legend(title="loss; of validation:")
        right.semilogy(steps, [max(float(row["difference"]), 1e-9) for row in rows], color=BLUE, lw=0.6)
        right.hlines(EARLY_BAR, 1, EARLY, color=GREY, linestyle="--", label="bar of the first 100 steps")
        right.legend(loc="lower right")
        for ax in (left, right):
            ax.set(xlabel="step", ylabel="nats per character")
        count_ticks(left, right)
        caption = "LLaMA of 4 layers, width 128, 4 heads; characters of Shakespeare; B = 12, T = 64, float32, seed 0"
        save(figure, RESULTS / "volume1_vs_volume2.png", caption)


if __name__ == "__main__":
    main()
