"""How close the engine is to the reference: the section `fidelity` of engine.py. Needs torch and transformers.

The texts are the first lines of Python's own help topics (pydoc_data.topics): English prose on every user's disk.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from engine_race import Worker, say

from nano_llama.verify.divergence import Divergence

TEXTS, PROMPT, SCORED = 20, 32, 64


def fidelity(args: argparse.Namespace, files: dict[str, Path]) -> dict[str, Any]:
    say("fidelity")
    prompts, continuations, size = texts(files["Q4_1"])
    reference = reference_logits(files["Q4_1"], prompts, continuations, args.threads)  # (P,T,V) float32
    targets = np.array(continuations)  # (P,T)
    truth = Divergence.of_texts(reference, reference, targets).bits_per_byte(size)
    result: dict[str, Any] = {"texts": TEXTS, "tokens": SCORED, "bits_per_byte": {"float32": round(truth, 5)}}
    for kind in ("Q4_1", "Q4_0", "Q8_0"):
        mine = reference if kind == "Q4_1" else reference_logits(files[kind], prompts, continuations, args.threads)
        out = files[kind].parent / "logits.npy" if kind != "Q4_1" else files["Q8_0"].parent / "logits.npy"
        worker = Worker(sys.executable, "nano", files[kind], threads=args.threads, kv_cache_memory="256MiB")
        worker.ask("logits", prompts=prompts, continuations=continuations, out=str(out))
        worker.close()
        found = np.load(out)
        divergence = Divergence.of_texts(mine, found, targets)
        base, own = Divergence.of_texts(mine, mine, targets).bits_per_byte(size), divergence.bits_per_byte(size)
        result[kind] = {
            "mean_kl": divergence.mean_kl.mean,
            "same_choice": divergence.same_choice,
            "bits_per_byte": own,
            "bits_per_byte_float32": base,
            "bits_per_byte_change": own / base - 1,
        }
        say(f"  {kind}: mean KL {result[kind]['mean_kl']:.5f}, bits per byte {own:.4f} against {base:.4f}")
    result["greedy"] = greedy(args, files, prompts)
    say(f"  greedy in float32: {result['greedy']['identical']} of {TEXTS} identical to transformers")
    return result


def texts(model: Path) -> tuple[list[list[int]], list[list[int]], int]:
    """-> prompts (P,32), their continuations (P,64), and the bytes of all continuations."""
    from pydoc_data.topics import topics

    from nano_llama.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_pretrained(model)
    prompts, continuations, size = [], [], 0
    for name in sorted(topics, key=lambda name: -len(topics[name]))[:TEXTS]:
        ids = list(tokenizer.encode(topics[name][:4000]))[: PROMPT + SCORED]
        prompts.append(ids[:PROMPT])
        continuations.append(ids[PROMPT:])
        size += len(tokenizer.decode(ids[PROMPT:]).encode())
    return prompts, continuations, size


def reference_logits(path: Path, prompts: list, continuations: list, threads: int) -> np.ndarray:
    """Volume 2 in float32 on the dequantized weights: the logits that predict each continuation's tokens, (P,T,V)."""
    import torch

    from nano_llama.vol2_torch import Llama

    torch.set_num_threads(threads)
    model = Llama.from_pretrained(path, dtype=torch.float32)
    with torch.inference_mode():
        tokens = torch.tensor([p + c for p, c in zip(prompts, continuations, strict=True)])  # (P, 32+64)
        return torch.cat([model(row[None])[:, PROMPT - 1 : -1] for row in tokens]).numpy()


def greedy(args: argparse.Namespace, files: dict[str, Path], prompts: list) -> dict[str, Any]:
    """64 tokens of each prompt by both, in float32; ours one at a time and all 20 in one batch."""
    theirs = Worker(sys.executable, "transformers", files["hf32"], threads=args.threads, dtype="float32")
    ours = Worker(
        sys.executable, "nano", files["Q4_1"], threads=args.threads, dtype="float32", kv_cache_memory="512MiB"
    )
    expected = [theirs.ask("run", prompt=prompt, new=SCORED)["ids"] for prompt in prompts]
    alone = [ours.ask("run", prompt=prompt, new=SCORED)["ids"] for prompt in prompts]
    together = ours.ask("batch", prompts=prompts, new=SCORED)["ids"]
    theirs.close()
    ours.close()
    return {
        "identical": sum(a == b for a, b in zip(expected, alone, strict=True)),
        "identical_in_a_batch": sum(a == b for a, b in zip(expected, together, strict=True)),
    }
