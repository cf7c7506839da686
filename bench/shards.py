"""Text to token shards: MB/s beside the tokenizers library's own batch encoding, and what kills do to the result.

    python bench/shards.py --data FOLDER [--files 1] [--vocab 4096] [--kills 10]

FOLDER holds .parquet files of books; without --files, any source that `nano-llama train --data` takes will do.
Measured in one run, on the same text with the same tokenizer, trained on a sample of it:

    library      tokenizers' encode_batch over all documents in memory, its own threads on all cores
    ours         `prepare`: reading, checksums, encoding, shards on disk, with 1 worker and with one a core
    kills        `prepare` again, killed (-9) at random moments and started anew: the same bytes?

Bars: ours at least 80% of the library's speed; all datasets identical. Prints a table; writes bench/results/shards.json;
the last line printed is the summary as JSON.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _machine import fingerprint

from nano_llama.core.data.dataset import open_dataset
from nano_llama.core.data.prepare import prepare
from nano_llama.core.data.sources import SPLITS, open_source
from nano_llama.core.files import write_json
from nano_llama.core.tokenizer import Tokenizer

RESULTS = Path(__file__).parent / "results"
BAR = 0.8
GROUP_BYTES = 32 * 2**20  # the library is handed as much at a time: all at once would need 20 GB
PREPARE = (
    "import sys; from nano_llama.core.data.prepare import prepare; prepare(*sys.argv[1:4], workers=int(sys.argv[4]))"
)


def hash_of(folder: Path) -> str:
    """One hash over the names and bytes of all files below a folder."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def library_speed(source: Any, tokenizer: Tokenizer) -> tuple[float, int, int]:
    """-> seconds that the library's encode_batch takes for all the text, bytes, tokens."""
    import tokenizers

    library = tokenizers.Tokenizer.from_str(tokenizer.backend.source)
    library.encode_special_tokens = True
    seconds, size, tokens, group, in_group = 0.0, 0, 0, [], 0

    def encode() -> None:
        nonlocal seconds, tokens
        began = time.perf_counter()
        found = library.encode_batch(group, add_special_tokens=False)
        seconds += time.perf_counter() - began
        tokens += sum(len(encoding) for encoding in found)

    for split in SPLITS:
        for document in source.documents(split):
            group.append(document.text)
            in_group += len(document.text.encode())
            if in_group >= GROUP_BYTES:
                encode()
                size, group, in_group = size + in_group, [], 0
    if group:
        encode()
    return seconds, size + in_group, tokens


def kill_and_resume(spec: str, tokenizer: Path, out: Path, kills: int, expected_seconds: float) -> int:
    """Prepare with kills spread over the work; -> how many there were."""
    rng = random.Random(0)
    done = 0
    while True:
        process = subprocess.Popen([sys.executable, "-c", PREPARE, spec, str(tokenizer), str(out), "2"])
        try:
            limit = 1.0 + rng.random() * 2 * expected_seconds / max(kills, 1) if done < kills else None
            process.wait(timeout=limit)
            return done
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a source: a folder, a file, stdlib, classic-books, ...")
    parser.add_argument("--files", type=int, help="only the first so many .parquet files of the folder")
    parser.add_argument("--vocab", type=int, default=4096, help="ids of the byte-level BPE (default 4096)")
    parser.add_argument("--kills", type=int, default=10, help="how often to kill a run (default 10; 0: leave it out)")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    machine = fingerprint()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        spec = args.data
        if args.files:
            (work / "corpus").mkdir()
            for file in sorted(Path(args.data).glob("*.parquet"))[: args.files]:
                (work / "corpus" / file.name).symlink_to(file.resolve())
            spec = str(work / "corpus")
        source = open_source(spec)

        began = time.perf_counter()
        step = max(1, source.size_hint() // (1000 * args.vocab))
        texts = (d.text[i : i + 16384] for d in source.documents("train") for i in range(0, len(d.text), 16384 * step))
        tokenizer = Tokenizer.train_bpe(texts, args.vocab)
        tokenizer.save_pretrained(work / "tokenizer")
        rows = [("train the tokenizer on a sample", time.perf_counter() - began, None)]

        seconds, size, tokens = library_speed(source, tokenizer)
        rows.append(("tokenizers encode_batch", seconds, size / seconds / 1e6))
        hashes = {}
        for workers in dict.fromkeys((1, cores)):
            began = time.perf_counter()
            prepare(spec, tokenizer, work / f"out{workers}", workers=workers)
            took = time.perf_counter() - began
            rows.append((f"prepare, {workers} worker{'s' if workers > 1 else ''}", took, size / took / 1e6))
            hashes[f"{workers} workers"] = hash_of(work / f"out{workers}")
        best = rows[-1]
        counted = open_dataset(work / f"out{cores}")
        assert counted.train.num_bytes + counted.val.num_bytes == size, "the two did not read the same text"
        separators = counted.train.num_documents + counted.val.num_documents
        same_count = counted.train.num_tokens + counted.val.num_tokens == tokens + separators
        kills = 0
        if args.kills:
            kills = kill_and_resume(spec, work / "tokenizer", work / "killed", args.kills, best[1])
            hashes[f"killed {kills} times"] = hash_of(work / "killed")

    ratio = best[2] / rows[1][2]
    for name, took, speed in rows:
        print(f"{name:<36}{took:>9.2f} s" + (f"{speed:>9.2f} MB/s" if speed else ""))
    for name, digest in hashes.items():
        print(f"{name:<36}{digest[:32]}")
    result = {
        "megabytes": round(size / 1e6, 2),
        "tokens": tokens,
        "library_mb_per_s": round(rows[1][2], 2),
        "prepare_mb_per_s": {name: round(speed, 2) for name, _, speed in rows[2:]},
        "ratio_to_library": round(ratio, 2),
        "identical": len(set(hashes.values())) == 1 and same_count,
        "kills": kills,
        "sha256": next(iter(hashes.values())),
        "passed": ratio >= BAR and len(set(hashes.values())) == 1 and same_count,
    }
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / "shards.json", {**result, "machine": machine})
    print(json.dumps(result))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
