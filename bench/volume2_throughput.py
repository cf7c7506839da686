"""How fast is a training step of Volume 2, beside transformers' model trained the usual way?

    python bench/volume2_throughput.py            on a CPU: d512 L8 H8 F1376 T256 B8 V4096 (27M parameters)
    python bench/volume2_throughput.py --gpu      on a GPU: the preset 350m at T = 2048, MFU against its measured peak

Both take the same batches, clip the gradient and use fused AdamW, in bf16: transformers' LlamaForCausalLM under
autocast, eager; ours as `nano-llama train` runs it. They take turns, so that both see the same machine, and the peak is
measured between them; figures are of the fastest step, the one least disturbed by other work.
Bar on a CPU: 1.2 x; on a GPU: an MFU of 0.5. Writes bench/results/volume2_throughput.json.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from _machine import fingerprint

from nano_llama.core.files import write_json
from nano_llama.training import TrainingLoop, TrainSettings
from nano_llama.training.flops import flops_per_token
from nano_llama.vol2_torch.peak_flops import measured_peak
from nano_llama.vol2_torch.trainer import Trainer

RESULT = Path(__file__).parent / "results" / "volume2_throughput.json"
CPU_BAR, GPU_BAR = 1.2, 0.5
CPU_SHAPE = {
    "tokenizer": "bpe:4096", "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 8, "intermediate_size": 1376, "context": 256, "batch_size": 8,
}  # fmt: skip
GPU_SHAPE = {"tokenizer": "bpe:49152", "model": "350m", "context": 2048, "batch_size": 16}


def our_step(trainer: TrainingLoop) -> Callable[[Any], None]:
    trainer.backend.warm_up(next(trainer.batches))
    return lambda batch: (trainer.train_step([batch], 1e-4), None)[1]


def their_step(trainer: TrainingLoop) -> Callable[[Any], None]:
    """transformers' model of the same shape, eager, under bf16 autocast."""
    shape = {k: v for k, v in trainer.config.to_hf_dict().items() if k not in ("architectures", "model_type")}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape)).to(trainer.backend.device.place).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(batch: Any) -> None:
        tokens, targets = (torch.from_numpy(array).to(trainer.backend.device.place) for array in batch)
        with torch.autocast(trainer.backend.device.place.type, torch.bfloat16):
            logits = model(input_ids=tokens).logits  # (B,T,V)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    shape = GPU_SHAPE if args.gpu else CPU_SHAPE
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainSettings(
            data="stdlib", precision="bf16", compile="on", evaluations=0, max_steps=1,
            device="cuda" if args.gpu else "cpu", **shape,
        )  # fmt: skip
        trainer = Trainer(settings, Path(folder) / "run")
        steps = {"transformers": their_step(trainer), "ours": our_step(trainer)}
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        peak = 0.0
        for turn in range(args.steps + 2):
            peak = max(peak, measured_peak(trainer.backend.device.place, torch.bfloat16))
            batch = next(trainer.batches)
            for name, step in steps.items():
                begin = time.perf_counter()
                step(batch)
                if turn >= 2:  # the first two warm up
                    seconds[name].append(time.perf_counter() - begin)
    flops = flops_per_token(trainer.config, settings.context)
    result: dict[str, Any] = {"parameters": trainer.config.num_parameters, "peak_gflops": peak / 1e9}
    for name, times in seconds.items():
        rate = settings.tokens_per_step / min(times)
        result |= {
            f"{name}_best_ms": 1e3 * min(times), f"{name}_median_ms": 1e3 * statistics.median(times),
            f"{name}_tokens_per_second": rate, f"{name}_mfu": rate * flops / peak,
        }  # fmt: skip
    result["ratio"] = result["ours_tokens_per_second"] / result["transformers_tokens_per_second"]
    result["passed"] = result["ours_mfu"] >= GPU_BAR if args.gpu else result["ratio"] >= CPU_BAR
    write_json(RESULT, {**result, "steps": args.steps, "device": trainer.backend.device.name, "machine": fingerprint()})
    for key, value in result.items():
        print(f"{key:32} {value:,.4g}" if isinstance(value, float) else f"{key:32} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
