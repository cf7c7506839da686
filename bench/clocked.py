"""Runs by the clock: does a run end within its minutes, use them, and end with a validation loss?

    python bench/clocked.py [--minutes 0.5 1 2] [--engines torch numpy]

Each run is a process, `nano-llama train --max-minutes M`, timed from its start to its end: alone, and beside one-thread
loops, as many as cores, that come and go every few seconds. Bar: none over; alone 85% of the minutes used (93% from 2
minutes on), with neighbours 75%; always a validation loss. Needs torch. Writes bench/results/clocked.json; its last
printed line is the summary.
"""

import argparse
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
COMMAND = [sys.executable, "-m", "nano_llama", "train", "--tokenizer", "char", "--model", "char", "--context", "64"]
COME_AND_GO = (7.0, 5.0)  # seconds with neighbours, and without


def bar(minutes: float, busy: bool) -> float:
    """The share of its minutes that a run must use."""
    return 0.75 if busy else 0.93 if minutes >= 2 else 0.85


def come_and_go(over: threading.Event) -> None:
    while not over.is_set():
        with neighbours():
            over.wait(COME_AND_GO[0])
        over.wait(COME_AND_GO[1])


def run(folder: Path, text: Path, minutes: float, engine: str, busy: bool) -> dict[str, Any]:
    over = threading.Event()
    company = threading.Thread(target=come_and_go, args=(over,), daemon=True)
    if busy:
        company.start()
    begin = time.perf_counter()
    out = folder / f"{engine}-{minutes}-{busy}"
    flags = ["--data", text, "--out", out, "--max-minutes", minutes, "--engine", engine, "--quiet"]
    done = subprocess.run([*COMMAND, *map(str, flags)], capture_output=True, text=True)
    took = time.perf_counter() - begin
    over.set()
    if busy:
        company.join()
    assert done.returncode == 0, done.stderr
    rows = read_metrics(out / "metrics.jsonl")
    used = took / (60 * minutes)
    return {
        "engine": engine, "minutes": minutes, "neighbours": busy, "used": round(used, 3), "steps": rows[-1]["step"],
        "first_lr": rows[0]["lr"], "val_loss": rows[-1].get("val_loss"), "partial": rows[-1].get("val_partial", False),
        "met": bar(minutes, busy) <= used <= 1 and rows[-1].get("val_loss") is not None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--engines", nargs="+", default=["torch", "numpy"])
    args = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text(" ".join(WORDS[i * i % len(WORDS)] for i in range(200_000)))
        for minutes in args.minutes:
            for busy in (False, True):
                for engine in args.engines:
                    runs.append(run(Path(folder), text, minutes, engine, busy))
                    print(runs[-1], flush=True)
    write_json(RESULTS, {"runs": runs, "machine": fingerprint()})
    print(json.dumps({"met": sum(row["met"] for row in runs), "runs": len(runs)}))


if __name__ == "__main__":
    main()
