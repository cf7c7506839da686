"""How much of its speed is left beside two busy programs? Every laptop has such neighbours.

    python bench/busy.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--turns 5] [--seconds 4]

Training by Volumes 2 and 1 (the preset shakespeare-cpu's shape and batches) and decoding by the engine, each in a
process of its own, measured by turns: alone, then beside as many one-thread loops as there are cores, for which half of
the machine is fair. A thread that spins while it waits for one that does not run burns its share for nothing.
Bar: a third of the speed alone, median of the turns. Needs torch. Writes bench/results/busy.json; its last printed
line is the summary.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _machine import fingerprint

from nano_llama.core.files import write_json
from nano_llama.core.machine import usable_cores

RESULTS = Path(__file__).parent / "results" / "busy.json"
BAR = 1 / 3
WORKLOADS = ("torch", "numpy", "engine")
WORDS = ["the", "cat", "saw", "a", "red", "bird", "and", "the", "dog", "ran", "to", "an", "old", "tree"]


def training(engine: str, folder: str) -> Callable[[], int]:
    """One training step; returns its tokens."""
    from nano_llama.training.settings_layers import make_settings

    text = Path(folder) / "text.txt"
    text.write_text(" ".join(WORDS[i * i % len(WORDS)] for i in range(20_000)))
    flags = {"data": str(text), "engine": engine, "max_steps": 1, "evaluations": 0, "device": "cpu", "compile": "off"}
    settings = make_settings(preset="shakespeare-cpu", flags={**flags, "max_minutes": None})
    if engine == "torch":
        from nano_llama.vol2_torch.trainer import Trainer
    else:
        from nano_llama.vol1_numpy.trainer import Trainer
    loop = Trainer(settings, Path(folder) / "run")

    def step() -> int:
        with loop.backend.device.computing():
            loop.train_step([next(loop.batches)], 1e-4)
        return settings.tokens_per_step

    return step


def decoding(model: str) -> Callable[[], int]:
    """A short greedy text; returns its tokens."""
    from nano_llama import LLM, SamplingParams

    llm = LLM(model, max_num_seqs=1, kv_cache_memory="64MiB")
    params = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True)
    return lambda: len(llm.generate(["Once upon a time"], params)[0].token_ids)


def worker(workload: str, model: str) -> None:
    """Answers every line on stdin, a number of seconds, with the tokens/s that it made in them."""
    with tempfile.TemporaryDirectory() as folder:
        step = decoding(model) if workload == "engine" else training(workload, folder)
        step()
        print("ready", flush=True)
        for line in sys.stdin:
            begin, tokens = time.perf_counter(), 0
            while (took := time.perf_counter() - begin) < float(line):
                tokens += step()
            print(tokens / took, flush=True)


@contextmanager
def neighbours() -> Iterator[None]:
    """As many busy one-thread loops as there are cores."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(usable_cores())]
    try:
        time.sleep(0.5)
        yield
    finally:
        for loop in loops:
            loop.send_signal(signal.SIGKILL)
            loop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--worker", choices=WORKLOADS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.model)
        return
    command = [sys.executable, __file__, "--model", args.model, "--worker"]
    workers = {}
    for name in WORKLOADS:
        workers[name] = subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert workers[name].stdout.readline() == "ready\n"
    alone: dict[str, list[float]] = {name: [] for name in WORKLOADS}
    beside: dict[str, list[float]] = {name: [] for name in WORKLOADS}

    def measure(name: str) -> float:
        print(args.seconds, file=workers[name].stdin, flush=True)
        return float(workers[name].stdout.readline())

    for _ in range(args.turns):
        for name in WORKLOADS:
            alone[name].append(measure(name))
            with neighbours():
                beside[name].append(measure(name))
    result: dict[str, Any] = {}
    for name, process in workers.items():
        process.stdin.close()
        process.wait()
        kept = [busy / idle for busy, idle in zip(beside[name], alone[name], strict=True)]
        result[name] = {
            "kept": statistics.median(kept), "turns": [round(share, 3) for share in kept],
            "alone_tokens_per_second": statistics.median(alone[name]),
            "beside_tokens_per_second": statistics.median(beside[name]),
        }  # fmt: skip
        print(f"{name:8} {result[name]['kept']:.2f} of {result[name]['alone_tokens_per_second']:,.0f} tokens/s")
    write_json(RESULTS, {"bar": BAR, "workloads": result, "turns": args.turns, "machine": fingerprint()})
    print(json.dumps({name: result[name]["kept"] for name in WORKLOADS}))


if __name__ == "__main__":
    main()
