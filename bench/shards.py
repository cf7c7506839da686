"""Text to token shards: MB/s beside the tokenizers library's own batch encoding, and the result after kills.

    python bench/shards.py --data FOLDER [--files 1] [--vocab 4096] [--kills 10]

FOLDER holds .parquet files of books; without --files, any source that `nano-llama train --data` takes will do.
Measured in one run, on the same text with the same tokenizer, trained on a sample of it; in seconds of wall time and
of CPU time, which other work on the machine changes less:

    library      tokenizers' encode_batch over documents in memory, its own threads on all cores
    ours         `prepare`: reading, checksums, encoding, shards on disk, with 1 worker and with one per core
    kills        `prepare` again, killed (-9) at random moments and started again: the same bytes?

Bars: ours at least 80% of the library's speed; all datasets identical. Prints a table; writes
bench/results/shards.json; the last line printed is the summary as JSON.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _machine import fingerprint

from nano_llama.core.files import write_json
from nano_llama.core.machine import usable_cores
from nano_llama.data.prepare import prepare
from nano_llama.data.sources import SPLITS, open_source
from nano_llama.tokenizer import Tokenizer

RESULTS = Path(__file__).parent / "results"
BAR = 0.8
GROUP_BYTES = 32 * 2**20  # per call of the library: all at once would need 20 GB
PREPARE = "import sys; from nano_llama.data.prepare import prepare; prepare(*sys.argv[1:4], workers=int(sys.argv[4]))"


def hash_of(folder: Path) -> str:
    """One hash over the names and bytes of all files below a folder."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


class Clock:
    """Wall and CPU seconds (of this process and of children that have ended) since it was created."""

    def __init__(self) -> None:
        self.began = self._now()

    def read(self) -> tuple[float, float]:
        return tuple(now - then for now, then in zip(self._now(), self.began, strict=True))

    def _now(self) -> tuple[float, float]:
        times = os.times()
        return time.perf_counter(), times.user + times.system + times.children_user + times.children_system


def library_speed(source: Any, tokenizer: Tokenizer, most: float) -> tuple[float, float, int, int]:
    """-> wall and CPU seconds of the library's encode_batch for at least `most` bytes of text, bytes, tokens."""
    import tokenizers

    library = tokenizers.Tokenizer.from_str(tokenizer.backend.source)
    library.encode_special_tokens = True
    wall, processor, size, tokens = 0.0, 0.0, 0, 0
    documents = (document.text for split in SPLITS for document in source.documents(split))
    while size < most:
        group = list(take(documents, GROUP_BYTES))
        if not group:
            break
        clock = Clock()
        found = library.encode_batch(group, add_special_tokens=False)
        spent = clock.read()
        wall, processor = wall + spent[0], processor + spent[1]
        size += sum(len(text.encode()) for text in group)
        tokens += sum(len(encoding) for encoding in found)
    return wall, processor, size, tokens


def take(texts: Iterator[str], size: int) -> Iterator[str]:
    """The next texts, `size` bytes in all or a little more."""
    while size > 0 and (text := next(texts, None)) is not None:
        size -= len(text.encode())
        yield text


def kill_and_resume(spec: str, tokenizer: Path, out: Path, kills: int, expected_seconds: float) -> int:
    """Prepare, with kills spread over the work. -> how many there were"""
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
    parser.add_argument("--files", type=int, help="only this many of the folder's .parquet files")
    parser.add_argument("--vocab", type=int, default=4096, help="vocabulary of the byte-level BPE (default 4096)")
    parser.add_argument("--library-megabytes", type=float, default=1e9, help="stop the library after this much text")
    parser.add_argument("--kills", type=int, default=10, help="how often to kill a run (default 10; 0: never)")
    args = parser.parse_args()
    cores = usable_cores()
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

        rows: list[tuple[str, float, float, float]] = []  # name, wall seconds, CPU seconds, MB

        clock = Clock()
        step = max(1, source.size_hint() // (1000 * args.vocab))
        texts = (d.text[i : i + 16384] for d in source.documents("train") for i in range(0, len(d.text), 16384 * step))
        tokenizer = Tokenizer.train_bpe(texts, args.vocab)
        tokenizer.save_pretrained(work / "tokenizer")
        rows.append(("train the tokenizer on a sample", *clock.read(), 0.0))

        wall, processor, size, tokens = library_speed(source, tokenizer, args.library_megabytes * 1e6)
        rows.append(("tokenizers encode_batch", wall, processor, size / 1e6))
        hashes = {}
        for workers in dict.fromkeys((1, cores)):
            clock = Clock()
            dataset = prepare(spec, tokenizer, work / f"out{workers}", workers=workers)
            megabytes = (dataset.train.num_bytes + dataset.val.num_bytes) / 1e6
            rows.append((f"prepare, {workers} worker{'s' if workers > 1 else ''}", *clock.read(), megabytes))
            hashes[f"{workers} workers"] = hash_of(work / f"out{workers}")
        ours = dataset.train.num_tokens + dataset.val.num_tokens
        separators = dataset.train.num_documents + dataset.val.num_documents
        same_count = ours - separators == tokens or round(size / 1e6, 2) < round(megabytes, 2)
        kills = 0
        if args.kills:
            kills = kill_and_resume(spec, work / "tokenizer", work / "killed", args.kills, rows[-1][1])
            hashes[f"killed {kills} times"] = hash_of(work / "killed")

    print(f"{'':<36}{'wall s':>9}{'MB/s':>9}{'cpu s':>9}{'MB/cpu s':>9}")
    for name, wall, processor, size in rows:
        speeds = (f"{size / wall:>9.2f}", f"{size / processor:>9.2f}") if size else ("", "")
        print(f"{name:<36}{wall:>9.2f}{speeds[0]:>9}{processor:>9.2f}{speeds[1]}")
    for name, digest in hashes.items():
        print(f"{name:<36}{digest[:32]}")
    _, (_, library_wall, library_processor, library_size), *prepared = rows
    ratios = [size / wall / (library_size / library_wall) for _, wall, _, size in prepared]
    result = {
        "megabytes": round(megabytes, 2),
        "library_megabytes": round(library_size, 2),
        "tokens": ours,
        "library_mb_per_s": round(library_size / library_wall, 2),
        "library_mb_per_cpu_s": round(library_size / library_processor, 2),
        "prepare_mb_per_s": {name: round(size / wall, 2) for name, wall, _, size in prepared},
        "prepare_mb_per_cpu_s": {name: round(size / processor, 2) for name, _, processor, size in prepared},
        "ratio_to_library": round(max(ratios), 2),
        "identical": len(set(hashes.values())) == 1 and same_count,
        "kills": kills,
        "sha256": next(iter(hashes.values())),
    }
    result["passed"] = result["identical"] and max(ratios) >= BAR
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / "shards.json", {**result, "machine": machine})
    print(json.dumps(result))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
