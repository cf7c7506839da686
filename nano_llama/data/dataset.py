"""A prepared dataset: a folder of shards seen as two long rows of tokens, "train" and "val", with their documents.

Not here: making it (prepare.py). Tests: tests/data/test_dataset.py,
test_shards_hostile.py.

    dataset.json   what it was made from, the tokenizer's fingerprint, and each shard's name, counts and checksum
    tokenizer/     tokenizer.json and its companions
    train-00000.bin ...  val-00000.bin ...
"""

import hashlib
import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.files import read_json
from nano_llama.core.units import plural
from nano_llama.data.batches import Batches, BatchStream, Validation, validation
from nano_llama.data.openings import Opening, openings
from nano_llama.data.shards import DocumentTable, Shard, ShardHeader, read_header

if TYPE_CHECKING:
    from nano_llama.tokenizer import Tokenizer

DATASET_FILE = "dataset.json"
FORMAT = "nano-llama dataset 1"
OPEN_SHARDS = 64  # mapped at a time: each costs a file handle
_REMAKE = "Remove the folder and prepare the data again."


@dataclass(frozen=True)
class DocumentInfo:
    """Where a document is in its split."""

    name: str
    start: int  # its first token
    num_tokens: int  # with the separator that ends it, where the tokenizer has one
    num_bytes: int  # of its text in UTF-8


class TokenSplit:
    """One row of tokens over the shards of a split, read as needed. Can be sent to worker processes.

    Reading raises UserError where a shard is missing, FormatError where it has changed since it was written.
    """

    def __init__(self, name: str, paths: list[Path], headers: list[ShardHeader]):
        self.name = name
        self.paths = paths
        self.ends = list(accumulate(header.num_tokens for header in headers))  # of each shard, in this row
        self.dtype = headers[0].dtype
        self.num_tokens = self.ends[-1]
        self.num_documents = sum(header.num_documents for header in headers)
        self.num_bytes = sum(header.num_bytes for header in headers)  # of UTF-8 text
        self.num_learned = self.num_tokens  # all of them; of examples, only answers are
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._verified: set[int] = set()

    def __len__(self) -> int:
        return self.num_tokens

    def __getstate__(self) -> dict[str, Any]:
        state = {key: value for key, value in self.__dict__.items() if key != "table"}
        return {**state, "_open": OrderedDict()}

    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens start .. start+count-1, (count,) of `dtype`; a view of the file where one shard has them all.

        Raises IndexError outside 0 .. num_tokens.
        """
        if start < 0 or count < 0 or start + count > self.num_tokens:
            raise IndexError(f"tokens {start} to {start + count} of a split of {self.num_tokens}")
        if count == 0:
            return np.zeros(0, self.dtype)
        pieces = []
        while count:
            index = bisect_right(self.ends, start)
            before = self.ends[index - 1] if index else 0
            piece = self._shard(index).tokens[start - before : start - before + count]
            pieces.append(piece)
            start, count = start + len(piece), count - len(piece)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    @cached_property
    def table(self) -> DocumentTable:
        """All documents: starts count from the beginning of the split."""
        tables = [Shard(path).documents() for path in self.paths]
        offsets = [0, *self.ends[:-1]]
        return DocumentTable(
            np.concatenate([t.starts + offset for t, offset in zip(tables, offsets, strict=True)]),
            np.concatenate([t.text_bytes for t in tables]),
            np.concatenate([t.digests for t in tables]),
            [name for t in tables for name in t.names],
        )

    @property
    def document_starts(self) -> np.ndarray:
        """(documents,) int64, ascending: where each document begins."""
        return self.table.starts

    def document(self, index: int) -> DocumentInfo:
        """The document with this number, 0 .. num_documents - 1."""
        table = self.table
        start = int(table.starts[index])
        end = int(table.starts[index + 1]) if index + 1 < self.num_documents else self.num_tokens
        return DocumentInfo(table.names[index], start, end - start, int(table.text_bytes[index]))

    def document_at(self, position: int) -> DocumentInfo:
        """The document that the token at `position` belongs to."""
        return self.document(int(self.document_ids(position, 1)[0]))

    def document_ids(self, start: int, count: int) -> np.ndarray:
        """For each token of a range its document's number, (count,) int64: to keep attention within documents."""
        return np.searchsorted(self.table.starts, np.arange(start, start + count), side="right") - 1

    def verify(self) -> None:
        """Read every byte. Raises FormatError naming the shard that differs from what was written."""
        for path in self.paths:
            Shard(path).verify()

    def _shard(self, index: int) -> Shard:
        shard = self._open.get(index)
        if shard is None:
            if len(self._open) >= OPEN_SHARDS:
                self._open.popitem(last=False)
            shard = Shard(self.paths[index])
            if index not in self._verified:  # whole, once: altered data is not trained on
                shard.verify()
                self._verified.add(index)
            self._open[index] = shard
        else:
            self._open.move_to_end(index)
        return shard


class Dataset:
    """A folder written by `prepare`. Opening reads dataset.json and the shards' headers, and compares the two.

    Raises UserError where the folder is not a dataset or a file is missing, FormatError where one is damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        content = _read_description(self.folder)
        self.made_from: dict[str, Any] = content["made_from"]
        self.source: str = self.made_from["source"]
        self.vocab_size: int = content["tokenizer"]["vocab_size"]
        self.separator: int | None = content["tokenizer"]["separator"]  # the token after each document
        self.tokenizer_fingerprint: str = content["tokenizer"]["fingerprint"]
        self._content = content
        # Of what training reads, the tokens and the tokenizer: not of how they were made.
        self.fingerprint: str = _checksum({part: content[part] for part in ("tokenizer", "splits")})
        self.train = self._split("train", content["splits"]["train"])
        self.val = self._split("val", content["splits"]["val"])

    def __repr__(self) -> str:
        splits = ", ".join(
            f"{split.name} {plural(split.num_tokens, 'token')} in {plural(split.num_documents, 'document')}"
            for split in (self.train, self.val)
        )
        return f"Dataset({str(self.folder)!r}: {self.source}; {splits}; vocabulary {self.vocab_size:,})"

    def old_fingerprint(self, source_fingerprint: str) -> str:
        """What 0.1 kept in a checkpoint: the checksum of the whole description, the source's fingerprint included."""
        made_from = {**self.made_from, "source_fingerprint": source_fingerprint}
        content = {key: value for key, value in self._content.items() if key not in ("format", "checksum")}
        return seal({**content, "made_from": made_from})["checksum"]

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """Raises FormatError if it is not the one that made the shards."""
        from nano_llama.tokenizer import Tokenizer

        tokenizer = Tokenizer.from_pretrained(self.folder / "tokenizer")
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise FormatError(
                f"{self.folder / 'tokenizer'}: not the tokenizer that made these shards (its fingerprint is "
                f"{tokenizer.fingerprint[:12]}, not {self.tokenizer_fingerprint[:12]}).",
                hint=_REMAKE,
            )
        return tokenizer

    # -- what a training run asks of its data (data/sft/dataset.py: the same of examples) ----------------------------

    def training_batches(self, batch_size: int, context: int, seed: int, document_mask: bool) -> BatchStream:
        return Batches(self.train, batch_size, context, seed, document_mask=document_mask)

    def validation(self, batch_size: int, context: int, document_mask: bool) -> Validation:
        """Windows in order, as a reader goes through text: a mask would hide what comes before, so none is used."""
        return validation(self.val, self.val.num_bytes, context, batch_size)

    def openings(self, count: int, most_tokens: int) -> list[Opening]:
        return openings(self.val, self.tokenizer, count, most_tokens) if self.val.num_tokens >= 2 else []

    def verify(self) -> None:
        """Read every byte of every shard, and the tokenizer. Raises FormatError naming what differs."""
        self.train.verify()
        self.val.verify()
        assert self.tokenizer

    def _split(self, name: str, shards: list[dict[str, Any]]) -> TokenSplit:
        paths = [self.folder / shard["file"] for shard in shards]
        headers = [read_header(path) for path in paths]
        for path, shard, header in zip(paths, shards, headers, strict=True):
            if _counts(path, header) != shard:
                raise _bad(self.folder / DATASET_FILE, f"{path.name} is not the shard that is described there")
            if header.vocab_size != self.vocab_size:
                raise _bad(path, f"made for a vocabulary of {header.vocab_size}, the dataset's is {self.vocab_size}")
        return TokenSplit(name, paths, headers)


def open_dataset(folder: str | Path) -> Dataset:
    return Dataset(folder)


def describe_shard(path: Path) -> dict[str, Any]:
    """A shard's entry in dataset.json."""
    return _counts(path, read_header(path))


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a dataset.json with its format and a checksum of everything else."""
    content = {"format": FORMAT, **content}
    return {**content, "checksum": _checksum(content)}


def _counts(path: Path, header: ShardHeader) -> dict[str, Any]:
    return {
        "file": path.name,
        "tokens": header.num_tokens,
        "documents": header.num_documents,
        "bytes": header.num_bytes,
        "sha256": header.body_sha256.hex(),
    }


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_description(folder: Path) -> dict[str, Any]:
    """dataset.json, checked for its form; the shards are compared with it afterwards."""
    path = folder / DATASET_FILE
    if not path.is_file():
        raise UserError(
            f"{folder} is not a dataset: it has no {DATASET_FILE}.", hint="nano-llama train --data makes one."
        )
    try:
        content = read_json(path, "dataset description")
    except FormatError as error:
        raise FormatError(error.message, hint=_REMAKE) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise _bad(path, f"the format is {found!r}, not {FORMAT!r}")
    if _checksum({key: value for key, value in content.items() if key != "checksum"}) != content.get("checksum"):
        raise _bad(path, "the content does not match its checksum")
    problem = next(_problems(content), None)
    if problem:
        raise _bad(path, problem)
    return content


def _problems(content: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a description written by hand."""
    made_from, tokenizer, splits = (content.get(key) for key in ("made_from", "tokenizer", "splits"))
    if not isinstance(made_from, dict) or not isinstance(made_from.get("source"), str):
        yield "it does not say what it was made from"
    if not isinstance(tokenizer, dict) or not isinstance(tokenizer.get("fingerprint"), str):
        yield "it does not name its tokenizer"
    elif not _is_count(tokenizer.get("vocab_size")) or tokenizer["vocab_size"] == 0:
        yield f"impossible vocabulary size {tokenizer.get('vocab_size')!r}"
    elif tokenizer.get("separator") is not None and not (
        _is_count(tokenizer["separator"]) and tokenizer["separator"] < tokenizer["vocab_size"]
    ):
        yield f"impossible separator {tokenizer['separator']!r}"
    for name in ("train", "val"):
        shards = splits.get(name) if isinstance(splits, dict) else None
        if not isinstance(shards, list) or not shards:
            yield f"no shards for the split {name!r}"
            continue
        for index, shard in enumerate(shards):
            if not isinstance(shard, dict) or shard.get("file") != f"{name}-{index:05d}.bin":
                yield f"shard {index} of {name!r} is not called {name}-{index:05d}.bin"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _bad(path: Path, cause: str) -> FormatError:
    return FormatError(f"{path}: {cause}.", hint=_REMAKE)
