"""Documents -> a dataset on disk: train or load the tokenizer, tokenize in parallel, resume after a kill.

Tests: tests/data/test_prepare.py,
test_prepare_killed.py.

Work happens in `OUT.partial`, which becomes OUT by one rename when everything is there:

    plan.json     what is being made; a partial folder of another plan is discarded
    tokenizer/    trained or copied first; from then on everything reads it from here
    train-00000.bin ...  val-00000.bin ...     each written whole or not at all (units.py says what goes into which)
    dataset.json  last
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nano_llama.core.env import cache_dir
from nano_llama.core.errors import EnvironmentFault, FormatError, NanoLlamaError, UserError
from nano_llama.core.files import atomic_folder, read_json, write_json
from nano_llama.core.machine import usable_cores
from nano_llama.data.dataset import DATASET_FILE, Dataset, describe_shard, open_dataset, seal
from nano_llama.data.download import Progress
from nano_llama.data.encode import load_encoder
from nano_llama.data.lock import exclusive
from nano_llama.data.readers import Document
from nano_llama.data.shards import VERSION, Shard
from nano_llama.data.sources import SPLITS, Source, open_source
from nano_llama.data.units import Unit, plan_units, write_unit
from nano_llama.data.worker import WorkerPool
from nano_llama.tokenizer import Tokenizer

SHARD_BYTES = 8 * 2**20  # of text per shard: what a kill may cost each worker
SAMPLE_BYTES_PER_TOKEN = 1000  # of vocabulary: what a BPE is trained on, spread evenly over the corpus
SAMPLE_PIECE = 16_384  # characters
UNITS_WORTH_WORKERS = 4  # starting a process costs about as much as tokenizing a few MB


def prepare(
    spec: str | Path | Source,
    tokenizer: str | Path | Tokenizer = "char",
    out: str | Path | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Dataset:
    """Tokenize a corpus once; a second call with the same arguments opens what is there.

    spec        a source: stdlib, shakespeare, classic-books, a file or a folder (sources.py)
    tokenizer   "char" | "bpe:N" (trained on this corpus, N ids in all) | a path or hub name | a Tokenizer
    out         the dataset's folder; None: one in the cache, named by source and tokenizer
    workers     processes; None: one per core, none for a small corpus. The bytes written do not depend on it
    progress    called as progress(what, bytes done, bytes in all or None)

    Raises UserError (no such source, `out` holds something else, no text), FormatError (text or tokenizer we cannot
    read), EnvironmentFault (no network, no space).
    """
    if workers is not None and workers < 1:
        raise UserError(f"workers={workers}: at least one is needed.")
    if shard_bytes < 1:
        raise UserError(f"shard_bytes={shard_bytes}: at least 1.")
    source = open_source(spec, progress)
    wanted = _tokenizer_request(tokenizer)
    plan = {
        "version": VERSION,
        "source": source.name,
        "source_fingerprint": source.fingerprint(),
        "tokenizer": wanted if isinstance(wanted, str) else wanted.fingerprint,
        "shard_bytes": shard_bytes,
    }
    folder = Path(out) if out is not None else cache_dir() / "datasets" / f"{source.name}-{_digest(plan)[:16]}"
    if (found := _already_there(folder, plan)) is not None:
        return found
    partial = folder.with_name(folder.name + ".partial")
    with exclusive(partial / "lock", what=f"preparing {folder.name}"):
        if (found := _already_there(folder, plan)) is not None:  # another process made it meanwhile
            shutil.rmtree(partial, ignore_errors=True)
            return found
        try:
            _clear_unless_resumable(partial, plan)
            _bring_tokenizer(partial / "tokenizer", source, wanted, progress)
            _write_shards(partial, source, shard_bytes, workers, progress)
            _finish(partial, folder, plan)
        except NanoLlamaError:
            if not any(partial.glob("*.bin")):  # nothing to resume from: leave no trace
                shutil.rmtree(partial, ignore_errors=True)
            raise
    return open_dataset(folder)


def _tokenizer_request(tokenizer: str | Path | Tokenizer) -> str | Tokenizer:
    """ "char", "bpe:N", or the tokenizer given or named."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    name = str(tokenizer)
    if name == "char":
        return name
    if name == "bpe" or name.startswith("bpe:"):
        size = name.removeprefix("bpe").removeprefix(":")
        if not (size.isascii() and size.isdigit()):
            raise UserError(f"Tokenizer {name!r}: the size of its vocabulary is missing.", hint="For example  bpe:4096")
        return f"bpe:{int(size)}"
    return Tokenizer.from_pretrained(name)


def _already_there(folder: Path, plan: dict[str, Any]) -> Dataset | None:
    """The dataset that `folder` holds; None where nothing is in the way of making it."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not (folder / DATASET_FILE).exists():
        raise UserError(f"{folder} exists and is not a dataset.", hint="Choose another folder for the dataset.")
    dataset = open_dataset(folder)
    if dataset.made_from != plan:
        differing = [key for key in plan if dataset.made_from.get(key) != plan[key]]
        raise UserError(
            f"{folder} holds a dataset made differently (different: {', '.join(differing)}).",
            hint="Choose another folder, or remove this one.",
        )
    return dataset


def _clear_unless_resumable(partial: Path, plan: dict[str, Any]) -> None:
    """Leave in `partial` only what an earlier run of the same plan finished, and the lock."""
    resumable = False
    for file, plan_in in (("plan.json", lambda read: read), (DATASET_FILE, lambda read: read["made_from"])):
        try:  # a kill just before the last rename leaves dataset.json and no plan
            resumable = resumable or plan_in(read_json(partial / file)) == plan
        except (UserError, KeyError, TypeError):  # not there, or damaged
            continue
    for entry in partial.iterdir():
        if entry.name != "lock" and (not resumable or entry.name.startswith(".")):
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
    write_json(partial / "plan.json", plan)


def _bring_tokenizer(folder: Path, source: Source, wanted: str | Tokenizer, progress: Progress | None) -> None:
    """Train or copy the tokenizer into `folder`, unless an earlier run did."""
    if folder.exists():
        return
    if isinstance(wanted, Tokenizer):
        tokenizer = wanted
    elif wanted == "char":  # its alphabet is that of both splits, so that validation text can be encoded
        tokenizer = Tokenizer.train_char(document.text for split in SPLITS for document in source.documents(split))
    else:
        size = int(wanted.removeprefix("bpe:"))
        step = max(1, round(source.size_hint() / (SAMPLE_BYTES_PER_TOKEN * max(size, 1))))
        if progress:
            progress(f"training a tokenizer of {size:,} ids", 0, None)
        tokenizer = Tokenizer.train_bpe(_sample(source.documents("train"), step), size)
    with atomic_folder(folder) as temporary:
        tokenizer.save_pretrained(temporary)


def _sample(documents: Iterable[Document], step: int) -> Iterator[str]:
    """Every `step`-th piece of the corpus: documents are represented in proportion to their length."""
    count = 0
    for document in documents:
        for start in range(0, len(document.text), SAMPLE_PIECE):
            if count % step == 0:
                yield document.text[start : start + SAMPLE_PIECE]
            count += 1


def _write_shards(
    partial: Path, source: Source, shard_bytes: int, workers: int | None, progress: Progress | None
) -> None:
    """Write every shard that is not there yet."""
    total = source.size_hint()
    done = 0
    if workers is None:
        units = total / shard_bytes
        workers = 1 if units <= UNITS_WORTH_WORKERS else min(usable_cores(), int(units))

    def missing() -> Iterator[Unit]:
        nonlocal done
        for split in SPLITS:
            empty = True
            for unit in plan_units(source.documents(split), split, shard_bytes):
                empty = False
                if _is_written(partial / unit.file, unit):
                    done += unit.num_bytes
                else:
                    yield unit
            if empty:
                raise UserError(f"{source.name}: no text in the split {split!r}.", hint="Give more text, or a val.txt.")

    with ExitStack() as stack:
        finished: Iterator[Unit]
        if workers > 1:
            finished = stack.enter_context(WorkerPool(partial, workers)).run(missing())
        else:
            finished = _work_here(partial, missing())
        for unit in finished:
            done += unit.num_bytes
            if progress:
                progress("tokenizing", done, max(total, done))


def _work_here(folder: Path, units: Iterable[Unit]) -> Iterator[Unit]:
    encode, tokenizer = load_encoder(folder)
    for unit in units:
        write_unit(folder, unit, encode, tokenizer.vocab_size, tokenizer.eos_id)
        yield unit


def _is_written(path: Path, unit: Unit) -> bool:
    """Did an earlier run write this unit's shard? One that fails its checksum is written again."""
    if not path.exists():
        return False
    try:
        shard = Shard(path)
        shard.verify()
    except FormatError:
        return False
    return shard.header.num_bytes == unit.num_bytes and shard.header.num_documents == unit.num_documents


def _finish(partial: Path, folder: Path, plan: dict[str, Any]) -> None:
    """Write dataset.json and rename the folder into place."""
    tokenizer = Tokenizer.from_pretrained(partial / "tokenizer")
    content = {
        "made_from": plan,
        "tokenizer": {
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "separator": tokenizer.eos_id,
        },
        "splits": {split: [describe_shard(at) for at in sorted(partial.glob(f"{split}-*.bin"))] for split in SPLITS},
    }
    write_json(partial / DATASET_FILE, seal(content))
    try:
        (partial / "plan.json").unlink()
        if folder.exists():
            folder.rmdir()  # empty, as _already_there saw
        (partial / "lock").unlink()
        partial.rename(folder)
    except OSError as error:
        raise EnvironmentFault(f"Cannot write {folder}: {error.strerror or error}.") from error


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
