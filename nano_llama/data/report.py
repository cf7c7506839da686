"""What a corpus is made of: documents, bytes, tokens, the longest, and what is in both splits.

Tests: tests/data/test_report.py.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nano_llama.core.units import plural
from nano_llama.data.dataset import Dataset, DocumentInfo, TokenSplit


@dataclass(frozen=True)
class SplitReport:
    """One split in numbers."""

    documents: int
    bytes: int  # of UTF-8 text
    tokens: int  # with separators
    bytes_per_token: float
    longest: DocumentInfo  # by tokens
    repeated: int  # documents whose text an earlier one of the same split also has


@dataclass(frozen=True)
class Report:
    """A corpus in numbers. `leaks`: (name in val, name in train) of documents with exactly the same text."""

    source: str
    tokenizer: str  # as requested, or its fingerprint
    vocab_size: int
    train: SplitReport
    val: SplitReport
    leaks: list[tuple[str, str]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """As lines of text."""
        lines = [f"{self.source}, tokenizer {self.tokenizer} ({self.vocab_size:,} ids)"]
        for name, split in (("train", self.train), ("val", self.val)):
            lines.append(
                f"{name:>5}  {plural(split.documents, 'document')}  {split.bytes:,} bytes  {split.tokens:,} tokens  "
                f"{split.bytes_per_token:.2f} bytes per token  {split.repeated:,} repeated"
            )
            lines.append(f"       longest: {split.longest.name} ({split.longest.num_tokens:,} tokens)")
        lines.append(f"in both splits: {plural(len(self.leaks), 'document')}")
        lines += [f"       {val} = {train}" for val, train in self.leaks[:5]]
        return lines


def make_report(dataset: Dataset) -> Report:
    return Report(
        source=dataset.source,
        tokenizer=str(dataset.made_from.get("tokenizer")),
        vocab_size=dataset.vocab_size,
        train=_describe(dataset.train),
        val=_describe(dataset.val),
        leaks=_in_both(dataset),
    )


def _describe(split: TokenSplit) -> SplitReport:
    table = split.table
    lengths = np.diff(table.starts, append=split.num_tokens)  # (documents,)
    return SplitReport(
        documents=split.num_documents,
        bytes=split.num_bytes,
        tokens=split.num_tokens,
        bytes_per_token=split.num_bytes / max(split.num_tokens, 1),
        longest=split.document(int(np.argmax(lengths))),
        repeated=split.num_documents - len(np.unique(table.digests)),
    )


def _in_both(dataset: Dataset) -> list[tuple[str, str]]:
    train, val = dataset.train.table, dataset.val.table
    common, first_in_train, _ = np.intersect1d(train.digests, val.digests, return_indices=True)
    twin = dict(zip(common.tolist(), first_in_train.tolist(), strict=True))
    return [
        (name, train.names[twin[digest]])
        for name, digest in zip(val.names, val.digests.tolist(), strict=True)
        if digest in twin
    ]
