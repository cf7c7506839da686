"""A whole training step by hand in NumPy beside eager PyTorch on transformers' model: time, memory, time per op.

    python bench/volume1.py [--steps 12] [--threads 2]

Both do the same work from the same weights on the same batches (their losses are compared): forward, backward, clipping
by global norm, AdamW, in float32; PyTorch with scaled_dot_product_attention and its fused AdamW. Each runs in its own
process and they take turns, step by step, so that other work on the machine disturbs both alike. Bars: at most 1.1 x
the time (aim: 0.9 x) and 1.5 x the memory. Memory is the peak resident size less what the process held before its
model was built. Writes bench/results/volume1.json; the last line printed is that file's content.
"""

import argparse
import dataclasses
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.files import write_json
from nano_llama.core.init import init_params

RESULTS = Path(__file__).parent / "results"
SHAPE = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 688}
CONFIG = LlamaConfig(vocab_size=4096, max_position_embeddings=256, **SHAPE)
B, T = 8, 256
LR, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.95), 0.1, 1.0
WARM_UP = 2
TIME_BAR, MEMORY_BAR = 1.1, 1.5

Step = Callable[[np.ndarray, np.ndarray], float]


def numpy_step(threads: int) -> tuple[Step, Any]:
    from nano_llama.vol1_numpy import Llama
    from nano_llama.vol1_numpy.optim import AdamW, clip_by_global_norm

    model = Llama.init(CONFIG, threads=threads)
    optimizer = AdamW(model.params, LR, betas=BETAS, weight_decay=DECAY)

    def step(tokens: np.ndarray, targets: np.ndarray) -> float:
        loss, grads = model.loss_and_grads(tokens, targets)
        clip_by_global_norm(grads, CLIP)
        optimizer.step(model.params, grads)
        return loss

    return step, model


def torch_step(threads: int) -> tuple[Step, Any]:
    import torch
    from transformers import LlamaConfig as TheirConfig
    from transformers import LlamaForCausalLM

    torch.set_num_threads(threads)
    model = LlamaForCausalLM(TheirConfig(**CONFIG.to_hf_dict(), attn_implementation="sdpa"))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in init_params(CONFIG).items()})
    named = dict(model.named_parameters())
    groups = [
        {"params": [p for p in named.values() if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in named.values() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=True)

    def step(tokens: np.ndarray, targets: np.ndarray) -> float:
        optimizer.zero_grad(set_to_none=True)
        logits = model(torch.from_numpy(tokens), use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return step, model


def batch(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch that can be learned: each token's successor is a function of it."""
    tokens = np.random.default_rng(number).integers(0, CONFIG.vocab_size, (B, T))
    return tokens, (tokens * 31 + 7) % CONFIG.vocab_size


# -- a worker: a process that runs a step when asked --------------------------------------------------------------


def work(engine: str, threads: int) -> None:
    imports = {"numpy": "nano_llama.vol1_numpy, nano_llama.vol1_numpy.optim", "torch": "torch, transformers"}[engine]
    exec(f"import {imports}")
    if engine == "torch":
        from transformers import LlamaForCausalLM  # noqa: F401  (transformers imports lazily)
    before = resident("VmRSS")
    step, model = (numpy_step if engine == "numpy" else torch_step)(threads)
    print("ready", flush=True)
    for line in sys.stdin:
        if not line.startswith("step"):
            break
        tokens, targets = batch(int(line.split()[1]))
        began = time.perf_counter()
        loss = step(tokens, targets)
        print(json.dumps({"seconds": time.perf_counter() - began, "loss": loss}), flush=True)
    peak = resident("VmHWM")
    report = {"before_mb": before, "peak_mb": peak, "ops": op_times(model, threads) if engine == "numpy" else {}}
    print(json.dumps(report), flush=True)


def resident(field: str) -> float:
    """Resident megabytes of this process: now (VmRSS) or at their peak (VmHWM). Linux only; elsewhere 0."""
    status = Path("/proc/self/status")
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1000 if found else 0.0


def op_times(model: Any, threads: int, repeats: int = 4) -> dict[str, float]:
    """Milliseconds of each op in forward and backward, the mean over threads, in the fastest of several passes."""
    from nano_llama.vol1_numpy.ops.registry import OpPair

    plain_ops, best = model.ops, {}
    for _ in range(repeats):
        spent: dict[str, float] = defaultdict(float)
        lock = threading.Lock()

        def timed(name: str, function: Callable, spent=spent, lock=lock) -> Callable:
            def run(*args):
                began = time.perf_counter()
                result = function(*args)
                with lock:
                    spent[name] += time.perf_counter() - began
                return result

            return run

        pairs = {field.name: getattr(plain_ops, field.name) for field in dataclasses.fields(plain_ops)}
        model.ops = dataclasses.replace(
            plain_ops,
            **{
                name: OpPair(timed(f"{name} forward", pair.forward), timed(f"{name} backward", pair.backward))
                for name, pair in pairs.items()
            },
        )
        began = time.perf_counter()
        model.loss_and_grads(*batch(0))
        total = time.perf_counter() - began
        if not best or total < best["all"]:
            best = {name: seconds / threads for name, seconds in spent.items()}
            best |= {"the rest": total - sum(best.values()), "all": total}
    return {name: round(1000 * seconds, 1) for name, seconds in best.items()}


# -- by turns ------------------------------------------------------------------------------------------------------


class Worker:
    def __init__(self, engine: str, threads: int):
        command = [sys.executable, __file__, "--worker", engine, "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while (line := self.process.stdout.readline()) and line != "ready\n":
            pass
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def ask(self, words: str) -> dict[str, Any]:
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def step(self, number: int) -> None:
        answer = self.ask(f"step {number}")
        self.seconds.append(answer["seconds"])
        self.losses.append(answer["loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=["numpy", "torch"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.threads)
        return

    from _machine import fingerprint

    ours, theirs = Worker("numpy", args.threads), Worker("torch", args.threads)
    for number in range(WARM_UP + args.steps):
        for worker in (ours, theirs) if number % 2 else (theirs, ours):
            worker.step(number)
    reports = ours.ask("done"), theirs.ask("done")

    apart = max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True))
    assert apart < 1e-3, f"not the same computation: losses differ by {apart:.1e}"
    times = [worker.seconds[WARM_UP:] for worker in (ours, theirs)]
    memory = [report["peak_mb"] - report["before_mb"] for report in reports]
    result = {
        "shape": {**SHAPE, "vocab_size": CONFIG.vocab_size, "batch": B, "context": T, "threads": args.threads},
        "numpy_ms": round(1000 * statistics.median(times[0]), 1),
        "torch_ms": round(1000 * statistics.median(times[1]), 1),
        "numpy_best_ms": round(1000 * min(times[0]), 1),
        "torch_best_ms": round(1000 * min(times[1]), 1),
        "time_ratio": round(statistics.median(a / b for a, b in zip(*times, strict=True)), 3),
        "time_bar": TIME_BAR,
        "numpy_mb": round(memory[0], 1),
        "torch_mb": round(memory[1], 1),
        "memory_ratio": round(memory[0] / memory[1], 3) if memory[1] else None,
        "memory_bar": MEMORY_BAR,
        "largest_loss_difference": apart,
        "numpy_ms_per_op": reports[0]["ops"],
        "machine": fingerprint(),
    }
    show(result)
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / "volume1.json", result)
    print(json.dumps(result))


def show(result: dict[str, Any]) -> None:
    print(f"{'':24}{'NumPy':>10}{'PyTorch':>10}{'ratio':>8}{'bar':>6}")
    for title, unit, what, bar in (
        ("training step, ms", "ms", "time", TIME_BAR),
        ("peak memory, MB", "mb", "memory", MEMORY_BAR),
    ):
        ours, theirs, ratio = result[f"numpy_{unit}"], result[f"torch_{unit}"], result[f"{what}_ratio"]
        print(f"{title:24}{ours:>10}{theirs:>10}{ratio or 'unknown':>8}{bar:>6}")
    print("\nmilliseconds of forward and backward, by op:")
    for name, milliseconds in sorted(result["numpy_ms_per_op"].items(), key=lambda item: -item[1]):
        print(f"  {name:24}{milliseconds:>8}")


if __name__ == "__main__":
    main()
