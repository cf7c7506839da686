"""Runs by the clock: does a run end within its minutes, use them, and end with a validation loss?

    python bench/clocked.py [--minutes 0.5 1 2] [--engines torch numpy] [--slow-first-step 0 0.2]

Each run is a process, `nano-llama train --max-minutes M`, timed from its start to its end: alone, and beside one-thread
loops, as many as cores, that come and go every few seconds; as it is, and with a first step that sleeps for a fifth of
the minutes (a guess from it must not end a run early). Bar: none over; alone 85% of the minutes used (93% from 2
minutes on), with neighbours 75%; always a validation loss. Needs torch. Writes bench/results/clocked.json; its last
printed line is the summary. The default grid takes 28 minutes.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from _machine import fingerprint
from busy import WORDS, neighbours

from nano_llama.core.files import write_json
from nano_llama.training.metrics import read_metrics

RESULTS = Path(__file__).parent / "results" / "clocked.json"
COMMAND = ["train", "--tokenizer", "char", "--model", "char", "--context", "64", "--quiet"]
COME_AND_GO = (7.0, 5.0)  # seconds with neighbours, and without


def bar(minutes: float, busy: bool) -> float:
    """The share of its minutes that a run must use."""
    return 0.75 if busy else 0.93 if minutes >= 2 else 0.85


def come_and_go(over: threading.Event) -> None:
    while not over.is_set():
        with neighbours():
            over.wait(COME_AND_GO[0])
        over.wait(COME_AND_GO[1])


def train(seconds: float, arguments: list[str]) -> None:
    """`nano-llama` with these arguments; the first step sleeps for some seconds."""
    from nano_llama.cli import main
    from nano_llama.training.loop import TrainingLoop

    step = TrainingLoop.train_step

    def slow_at_first(loop: Any, *batches_and_lr: Any) -> Any:
        time.sleep(0.0 if loop.state.step else seconds)
        return step(loop, *batches_and_lr)

    TrainingLoop.train_step = slow_at_first  # type: ignore[method-assign]
    main(arguments)


def run(folder: Path, text: Path, minutes: float, engine: str, busy: bool, share: float) -> dict[str, Any]:
    over = threading.Event()
    company = threading.Thread(target=come_and_go, args=(over,), daemon=True)
    if busy:
        company.start()
    begin = time.perf_counter()
    out, first = folder / f"{engine}-{minutes}-{busy}-{share}", 60 * minutes * share
    flags = [*COMMAND, "--data", text, "--out", out, "--max-minutes", minutes, "--engine", engine]
    command = [sys.executable, __file__, "--train", str(first), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True)
    took = time.perf_counter() - begin
    over.set()
    if busy:
        company.join()
    assert done.returncode == 0, done.stderr
    rows = read_metrics(out / "metrics.jsonl")
    used = took / (60 * minutes)
    return {
        "engine": engine, "minutes": minutes, "neighbours": busy, "slow_first_step": first, "used": round(used, 3),
        "steps": rows[-1]["step"], "first_lr": rows[0]["lr"], "val_loss": rows[-1].get("val_loss"),
        "partial": rows[-1].get("val_partial", False),
        "met": bar(minutes, busy) <= used <= 1 and rows[-1].get("val_loss") is not None,
    }  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--train"]:
        train(float(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--engines", nargs="+", default=["torch", "numpy"])
    parser.add_argument("--slow-first-step", type=float, nargs="+", default=[0.0, 0.2], metavar="SHARE")
    args = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text(" ".join(WORDS[i * i % len(WORDS)] for i in range(200_000)))
        for case in itertools.product(args.minutes, args.engines, (False, True), args.slow_first_step):
            runs.append(run(Path(folder), text, *case))
            print(runs[-1], flush=True)
    write_json(RESULTS, {"runs": runs, "machine": fingerprint()})
    print(json.dumps({"met": sum(row["met"] for row in runs), "runs": len(runs)}))


if __name__ == "__main__":
    main()
