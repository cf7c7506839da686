"""What fine-tuning teaches: the tasks of recipes/small_tasks.py with their seeds, adapters and bases, each a process.

    python bench/small_tasks.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--runs runs/small_tasks] [--only facts]

A run whose score.json stands in --runs is not repeated, so an interrupted bench goes on where it was. RUNS says what is
run; --only, which of it, beside what stands in --runs. Bars: those of the recipe's TASKS. Prints a table; writes
bench/results/small_tasks.json; the last line printed is the summary as JSON.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from _machine import fingerprint

from nano_llama.core.files import write_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
SEEDS = {"": (), "-seed1": ("seed=1",), "-seed2": ("seed=2",)}
OTHERS = {
    "facts-dora": ("adapter=dora",), "facts-full": ("adapter=none", "lr=0.0001"),
    "facts-int8": ("base_quantization=int8",), "facts-int4": ("base_quantization=int4",),
}  # fmt: skip
TASKS = ("facts", "ledger", "gatekeeper", "reversal")
RUNS = {name + seed: settings for name in TASKS for seed, settings in SEEDS.items()} | OTHERS  # name -> settings


def measure(name: str, model: str, runs: Path) -> dict[str, Any]:
    score = runs / name / "score.json"
    if not score.exists():
        command = [sys.executable, ROOT / "recipes" / "small_tasks.py", name.partition("-")[0], "--model", model]
        command += ["--out", runs / name]
        for setting in RUNS[name]:
            command += ["--set", setting]
        if subprocess.run(command).returncode not in (0, 1):  # 1: below its bar
            sys.exit(f"{name} did not end; remove {runs / name} and run again")
    return json.loads(score.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a chat model: a folder, a .gguf or a hub name")
    parser.add_argument("--runs", type=Path, default=Path("runs/small_tasks"))
    parser.add_argument("--only", default="", help="what is missing is run if its name begins so")
    given = parser.parse_args()
    found = {}
    for name in RUNS:
        if name.startswith(given.only) or (given.runs / name / "score.json").exists():
            found[name] = measure(name, given.model, given.runs)
    for name, one in found.items():
        print(f"{name:18} {one['right']:3} of {one['asked']:3} right, {one['steps']} steps, {one['seconds']:.0f} s")
    summary = {"machine": fingerprint(), "runs": found}
    write_json(RESULTS / "small_tasks.json", summary)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
