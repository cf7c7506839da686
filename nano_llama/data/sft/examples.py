"""Files of examples -> a training and a validation split, in the files' order.

    open_examples(PATH)     a .jsonl or .txt file, or a folder with train.jsonl and val.jsonl

Where no file is for validation by its name (split_names.py), the last tenth of the examples is. A .jsonl file holds an
example per line, in one of the forms of forms.py; a .txt file holds documents, as for training (readers.py).

Tests: tests/data/sft/test_examples.py.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from nano_llama.core.errors import UserError
from nano_llama.data.corpus import list_files
from nano_llama.data.readers import COMPRESSED, ONE_A_LINE, kind_of, read_documents, read_records
from nano_llama.data.sft.forms import Completion, Conversation, Example, Text, read_example
from nano_llama.data.split_names import assign, is_unread_data

KINDS = (".jsonl", ".txt")
VALIDATION_SHARE = 10  # one example in so many


@dataclass(frozen=True)
class Examples:
    """unread: how many examples have a field of this name, which is not read. left_out: files that are not read."""

    train: list[Example]
    val: list[Example]
    unread: Counter[str] = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)


def contents(examples: Iterable[Example]) -> Counter[str]:
    """What the examples hold: messages by their roles, completions, texts."""
    count: Counter[str] = Counter()
    for example in examples:
        if isinstance(example, Conversation):
            count.update(f"{message['role']} messages" for message in example.messages)
        else:
            count["completions" if isinstance(example, Completion) else "texts"] += 1
    return count


def open_examples(path: str | Path) -> Examples:
    """The examples of a file or folder. Raises UserError and FormatError, naming file and line."""
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(f"No data at {str(path)!r}.", hint=f"Give {_READ}.")
    if not place.is_dir() and kind_of(place) not in KINDS:
        hint = ONE_A_LINE if place.suffix.lower() == ".json" else f"Give {_READ}."
        raise UserError(f"{place}: files of this kind are not read as examples.", hint=hint)
    train_files, val_files, left_out = _of_folder(place) if place.is_dir() else ([place], [], [])
    unread: Counter[str] = Counter()
    train = _read(train_files, unread)
    if val_files:
        return Examples(train, _read(val_files, unread), unread, left_out)
    if len(train) < 2:
        raise UserError(
            f"{place}: a single example, so none is left for validation.",
            hint=_ONE_TEXT if kind_of(place) == ".txt" else "Give more, or a folder with train.jsonl and val.jsonl.",
        )
    count = max(1, len(train) // VALIDATION_SHARE)
    return Examples(train[:-count], train[-count:], unread, left_out)


_READ = f"a .jsonl or .txt file (also {' '.join(COMPRESSED)}), or a folder with train.jsonl and val.jsonl"

_ONE_TEXT = (
    "A .txt file is one example unless <|endoftext|> separates several. Give examples one per line in a .jsonl file"
    " (docs/finetuning.md); plain text is for  nano-llama train --init-from"
)


def _of_folder(folder: Path) -> tuple[list[Path], list[Path], list[str]]:
    """Files for training, for validation, and the names of those that are not read."""
    found = list_files(folder, wanted=lambda file: kind_of(file) or is_unread_data(file))
    files = [file.relative_to(folder) for file in found]
    wanted: list[PurePath] = [file for file in files if kind_of(file) in KINDS]
    assigned = assign(wanted) if wanted else None
    if assigned is None or not assigned.train:
        there = ", ".join(map(str, files[:4])) or "no data files"
        raise UserError(f"{folder}: no examples to train on (found {there}).", hint=f"Give {_READ}.")
    read = {*assigned.train, *assigned.val}
    left_out = [str(file) for file in files if file not in read]
    return [folder / file for file in assigned.train], [folder / file for file in assigned.val], left_out


def _read(files: Sequence[Path], unread: Counter[str]) -> list[Example]:
    examples: list[Example] = []
    for path in files:
        before = len(examples)
        if kind_of(path) == ".txt":
            examples += [Text(document.name, document.text) for document in read_documents(path, str(path))]
        else:
            for number, record in read_records(path):
                example, fields = read_example(record, f"{path}, line {number}")
                examples.append(example)
                unread.update(fields)
        if len(examples) == before:
            raise UserError(
                f"{path}: no examples in it ({path.stat().st_size:,} bytes).", hint="Fill it, or remove it."
            )
    return examples
