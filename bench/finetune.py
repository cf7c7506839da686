"""Fine-tuning: tokens/s beside PEFT over transformers, and the memory of full, LoRA, DoRA and QLoRA fine-tuning.

    python bench/finetune.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--turns 5] [--threads 2]

Speed: LoRA of rank 8 on all layers' matrices, on the same padded batches of examples, whose last third counts, with
fused AdamW; by turns in one process. Each runs at its best: ours in the precision that `nano-llama finetune` takes
here, PEFT in float32, in bfloat16 under autocast and with a bfloat16 base, of which the fastest counts. Neither
recomputes activations, then both do. Figures are of the fastest step, the one least disturbed by other work; padding
is not counted as tokens. Memory: the largest resident set of a process that takes two steps, activations recomputed.
Bars: 1.3 x PEFT's tokens/s with AMX, else 1.1; LoRA's peak at most 0.75 of full fine-tuning's; QLoRA's base at most
0.35 of float32's bytes. Needs torch, peft, transformers. Writes bench/results/finetune.json; its last printed line is
the summary.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import fingerprint

from nano_llama.core.files import write_json
from nano_llama.core.machine import peak_resident_bytes, usable_cores
from nano_llama.formats import open_model, save_hf
from nano_llama.vol2_torch import Llama
from nano_llama.vol2_torch.finetune import LoraConfig, adapter_params, apply_lora, quantized_base, round_frozen
from nano_llama.vol2_torch.loss import at_counted_positions, fitting_head_loss, loss_sum
from nano_llama.vol2_torch.precision import Precision, resolve_precision

RESULT = Path(__file__).parent / "results" / "finetune.json"
METHODS = ("full", "lora", "dora", "int8", "int4")
PEFT = ("float32", "autocast", "bfloat16")
BATCH, SHORTEST, LONGEST = 8, 60, 160  # rows, and their tokens

Step = Callable[[torch.Tensor, torch.Tensor], None]


def batches(vocab_size: int, seed: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """tokens, targets (B,T): the targets of the last third of each row count; -100 elsewhere."""
    rng = np.random.default_rng(seed)
    while True:
        lengths = rng.integers(SHORTEST, LONGEST, BATCH)
        tokens = rng.integers(0, vocab_size, (BATCH, lengths.max() + 1))
        at = np.arange(lengths.max())
        counted = (at >= lengths[:, None] * 2 // 3) & (at < lengths[:, None])
        yield torch.from_numpy(tokens[:, :-1]), torch.from_numpy(np.where(counted, tokens[:, 1:], -100))


def real_tokens(targets: torch.Tensor) -> int:
    """Without padding, which follows the last counted target of a row."""
    return int(((targets != -100) * torch.arange(1, targets.shape[1] + 1)).max(dim=1).values.sum())


def trained(parameters: list[torch.nn.Parameter], loss_of: Callable[..., torch.Tensor]) -> Step:
    """A step: the loss's gradient, clipped, and AdamW."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def step(tokens: torch.Tensor, targets: torch.Tensor) -> None:
        loss_of(tokens, targets).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(path: Path, method: str, recompute: bool) -> Step:
    if method in ("int8", "int4"):
        with open_model(path) as weights:
            model = quantized_base(weights.config, weights, method)
    else:
        model = Llama.from_pretrained(path)
    parameters: dict[str, torch.nn.Parameter] = model.named_params() if method == "full" else {}
    precision = Precision(resolve_precision("auto", model.device, model.config.hidden_size).name, "cpu")
    if method != "full":
        apply_lora(model, LoraConfig(r=8, alpha=16, dora=method == "dora"))
        parameters = adapter_params(round_frozen(model, precision.dtype))
    model.train().train_with(0.0, "full" if recompute else "none")
    head_loss = at_counted_positions(fitting_head_loss)

    def loss_of(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with precision.autocast():
            return loss_sum(model, tokens, targets, head_loss) / (targets != -100).sum()

    return trained(list(parameters.values()), loss_of)


def their_step(folder: Path, form: str, recompute: bool) -> Step:
    """PEFT over transformers' model, of the same weights."""
    import peft
    import transformers

    dtype = torch.bfloat16 if form == "bfloat16" else torch.float32
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    lora = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, lora)
    if recompute:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()

    def loss_of(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=form == "autocast"):
            return model(input_ids=tokens, labels=targets, shift_labels=targets, use_cache=False).loss

    return trained([p for p in model.parameters() if p.requires_grad], loss_of)


def speed(path: Path, folder: Path, vocab_size: int, turns: int, recompute: bool) -> dict[str, float]:
    """name -> tokens/s of its fastest step, padding not counted."""
    steps = {f"peft_{form}": their_step(folder, form, recompute) for form in PEFT}
    steps |= {f"ours_{method}": our_step(path, method, recompute) for method in ("lora", "int4")}
    best = dict.fromkeys(steps, 0.0)
    source = batches(vocab_size)
    for turn in range(turns + 1):
        batch = next(source)
        for name, step in steps.items():
            begin = time.perf_counter()
            step(*batch)
            if turn:  # the first warms up
                best[name] = max(best[name], real_tokens(batch[1]) / (time.perf_counter() - begin))
    return best


def peak(path: Path, folder: Path, method: str, vocab_size: int) -> None:
    """Print the largest resident set, in bytes, of this process, which takes two steps."""
    step = their_step(folder, "autocast", True) if method == "peft" else our_step(path, method, True)
    source = batches(vocab_size)
    for _ in range(2):
        step(*next(source))
    gc.collect()
    print(peak_resident_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--peak", nargs=2, metavar=("METHOD", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with open_model(args.model) as weights:
        config = weights.config
        if args.peak:
            return peak(args.model, Path(args.peak[1]), args.peak[0], config.vocab_size)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "float32"
            save_hf(folder, config, weights)
            kept = speed(args.model, folder, config.vocab_size, args.turns, recompute=False)
            again = speed(args.model, folder, config.vocab_size, args.turns, recompute=True)
            command = [sys.executable, __file__, "--model", str(args.model), "--threads", str(args.threads), "--peak"]
            peaks = {
                method: int(subprocess.run([*command, method, str(folder)], capture_output=True, text=True, check=True)
                            .stdout.split()[-1])
                for method in (*METHODS, "peft")
            }  # fmt: skip
        base = quantized_base(config, weights, "int4")
    base_bytes = sum(tensor.nbytes for tensor in (*base.parameters(), *base.buffers()))
    ratios = {
        f"ratio_{name}": rates["ours_lora"] / max(rates[f"peft_{form}"] for form in PEFT)
        for name, rates in (("kept", kept), ("recomputed", again))
    }
    machine = fingerprint()
    bar = 1.3 if "amx" in str(machine["instructions"]).lower() else 1.1
    result = {
        "tokens_per_second": {"kept": kept, "recomputed": again}, **ratios, "bar": bar,
        "peak_bytes": peaks, "lora_of_full": peaks["lora"] / peaks["full"],
        "base_of_float32": base_bytes / (4 * config.num_parameters),
        "passed": min(ratios.values()) >= bar and peaks["lora"] <= 0.75 * peaks["full"],
    }  # fmt: skip
    write_json(RESULT, {**result, "batch": BATCH, "turns": args.turns, "threads": args.threads, "machine": machine})
    print(json.dumps(result))


if __name__ == "__main__":
    main()
