"""What each quantization scheme costs and gains: one table over the schemes of `quantization=`.

    python bench/quantization.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--schemes int8,int4 ...] [--repeats 5]

The file's weights as float32 are the reference. For each scheme: bits per weight, the size of the folder that
`nano-llama quantize` writes, mean KL to float32 and bits per byte over 20 texts x 64 tokens (engine_fidelity.py),
tokens/s of a single stream (in turns with float32), peak memory, and where it is slower than another. Needs torch.
Writes bench/results/quantization.json; its last printed line is the summary.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _machine import fingerprint
from engine_fidelity import reference_logits, texts
from engine_race import Field, Worker, prompt_of, say

from nano_llama.core.files import write_json
from nano_llama.formats import open_weights, read_config, save_hf
from nano_llama.formats.quantization_scheme import Scheme, bits_per_weight
from nano_llama.tokenizer import Tokenizer
from nano_llama.verify.divergence import Divergence

RESULTS = Path(__file__).parent / "results" / "quantization.json"
SCHEMES = ("float32", "bfloat16", "int8", "int4", "int4-sym", "int4,head=int4", "int4,first=int8,last=int8")
NEW = 64
# A key of the result file -> the heading of its column.
COLUMNS = {
    "bits": "bits/weight", "MB": "MB", "bits a byte": "bits per byte", "KL": "KL", "decode tok/s": "decode tokens/s",
    "prefill tok/s": "prefill tokens/s", "peak MB": "peak MB",
}  # fmt: skip


def measure(args: argparse.Namespace, reference_model: Path) -> dict[str, Any]:
    prompts, continuations, size = texts(reference_model)
    reference = reference_logits(reference_model, prompts, continuations, args.threads)  # (P,T,V)
    targets = np.array(continuations)  # (P,T)
    config = read_config(reference_model)
    rows: dict[str, Any] = {}
    field = Field()
    for scheme in args.schemes:
        say(f"{scheme} ...")
        folder = reference_model.parent / f"q{len(rows)}"
        command = [sys.executable, "-c", "import sys; from nano_llama.cli import main; sys.exit(main())", "quantize"]
        subprocess.run([*command, "--model", reference_model, "--to", scheme, "--out", folder, "--quiet"], check=True)
        options = {"threads": args.threads, "kv_cache_memory": "256MiB", "device": "cpu"}
        worker = Worker(sys.executable, "nano", folder, **options)
        out = reference_model.parent / "logits.npy"
        worker.ask("logits", prompts=prompts, continuations=continuations, out=str(out))
        found, memory = np.load(out), worker.ask("memory")
        worker.close()
        divergence = Divergence.of_texts(reference, found, targets)
        rows[scheme] = {
            "bits": bits_per_weight(Scheme.parse(scheme).kinds(config), config),
            "MB": sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6,
            "bits a byte": divergence.bits_per_byte(size),
            "KL": divergence.mean_kl.mean,
            "peak MB": next(iter(memory.values())) / 1e6,
        }
        field.enter(scheme, sys.executable, "nano", folder, **options)
    say("speed ...")
    for answers, name, count in (
        (field.race(args.repeats, "run", prompt=lambda: prompt_of(16), new=NEW), "decode tok/s", NEW - 1),
        (field.race(args.repeats, "run", prompt=lambda: prompt_of(512), new=2), "prefill tok/s", 512),
    ):
        for scheme, given in answers.items():
            key = "rest" if name == "decode tok/s" else "first"
            rows[scheme][name] = count / float(np.median([answer[key] for answer in given]))
    field.close()
    for row in rows.values():
        row["slower at"] = [
            what for what in ("decode tok/s", "prefill tok/s")
            if any(other["bits"] > row["bits"] and other[what] > 1.03 * row[what] for other in rows.values())
        ]  # fmt: skip
    return rows


def show(rows: dict[str, Any]) -> None:
    print(f"{'':28}" + "".join(f"{heading:>17}" for heading in COLUMNS.values()) + "  slower than with more bits at")
    for scheme, row in rows.items():
        cells = (
            f"{row[column]:>17.4f}" if column in ("KL", "bits a byte") else f"{row[column]:>17,.1f}"
            for column in COLUMNS
        )
        print(f"{scheme:28}" + "".join(cells) + f"  {', '.join(row['slower at']) or '-'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--schemes", nargs="+", default=SCHEMES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        reference_model = Path(temporary) / "float32"
        with open_weights(args.model) as weights:
            save_hf(
                reference_model, read_config(args.model), weights, Tokenizer.from_pretrained(args.model), dtype="F32"
            )
        rows = measure(args, reference_model)
    show(rows)
    result = {"machine": fingerprint(), "model": args.model.name, "threads": args.threads, "schemes": rows}
    write_json(RESULTS, result)
    best = {scheme: round(row["decode tok/s"]) for scheme, row in rows.items()}
    print(json.dumps({"quantization": {"decode_tokens_per_second": best}}))


if __name__ == "__main__":
    main()
