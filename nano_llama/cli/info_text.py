"""What `nano-llama info` says of text to train on, and of examples to fine-tune on.

Tests: tests/cli/test_info.py.
"""

import json
import shlex
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from nano_llama.cli.common import facts
from nano_llama.core.units import plural, size_text
from nano_llama.data.builtin import NAMES
from nano_llama.data.corpus import SPLITS, list_files
from nano_llama.data.readers import kind_of
from nano_llama.data.sources import open_source
from nano_llama.formats.shipped import DEFAULT_MODEL

MOST_BYTES = 256 * 2**20  # of which characters are counted
SAMPLE_CHARACTERS = 100_000  # that are tokenized, to estimate the number of tokens
EXAMPLES = {"messages", "conversations", "prompt", "instruction"}  # fields of data/sft/forms.py


def is_text(path: str) -> bool:
    """Whether `train` would read it: the name of a built-in text, a file, or a folder with such files."""
    place = Path(path).expanduser()
    if not place.exists():
        return path in NAMES
    return bool(list_files(place) if place.is_dir() else kind_of(place))


def show_text(path: str) -> tuple[dict[str, Any], list[RenderableType]]:
    """Documents, characters, and about how many tokens. A built-in text is downloaded where it is not on the disk."""
    place = Path(path).expanduser()
    if place.is_file() and kind_of(place) == ".jsonl" and EXAMPLES & set(fields := first_fields(place)):
        return show_examples(place, fields)
    source = open_source(path)
    counts = dict.fromkeys(SPLITS, 0)
    size = characters = 0
    alphabet: set[str] = set()
    sample = ""
    complete = True
    for split in SPLITS:
        for document in source.documents(split):
            counts[split] += 1
            size += len(document.text.encode())
            characters += len(document.text)
            alphabet.update(document.text)
            sample += document.text[: SAMPLE_CHARACTERS - len(sample)]
            if size > MOST_BYTES:
                complete = False
                break
    tokens, vocab = estimated_tokens(sample, size)
    name = path if path in NAMES else shlex.quote(path)
    out = Path("runs", source.name)
    data = {
        "path": path, "documents": counts, "bytes": size, "characters": characters,
        "distinct_characters": len(alphabet), "estimated_tokens": tokens, "complete": complete,
    }  # fmt: skip
    rows = {
        "path": path,
        "size": size_text(size) + ("" if complete else f" and more: only the first {size_text(MOST_BYTES)} were read"),
        "documents": "one; its last tenth validates"
        if counts["train"] == 1
        else f"{counts['train']:,}, and {counts['val']:,} to validate",
        "characters": f"{characters:,}, {len(alphabet):,} different ones",
        "tokens": f"about {tokens:,} with {DEFAULT_MODEL}'s tokenizer of {vocab:,}",
        "train on it": f"nano-llama train --data {name} --out {out} --max-minutes 5",
    }
    return data, [facts(rows, "Text")]


def estimated_tokens(sample: str, size: int) -> tuple[int, int]:
    """About how many tokens a text of `size` bytes has that begins like this, and of which vocabulary."""
    from nano_llama.formats import resolve_model
    from nano_llama.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_pretrained(resolve_model(DEFAULT_MODEL))
    found = len(tokenizer.encode(sample)) / max(1, len(sample.encode())) * size
    unknown = max(0, len(str(round(found))) - 2)  # two digits are known
    return int(round(found, -unknown)), tokenizer.vocab_size


def first_fields(path: Path) -> list[str]:
    """The fields of the first line of a .jsonl; none if it is anything but an object."""
    if path.suffix != ".jsonl":  # a compressed one: train or finetune says what is in it
        return []
    with path.open("rb") as file:
        line = next(iter(islice(file, 1)), b"")
    try:
        value = json.loads(line)
    except ValueError:
        return []
    return list(value) if isinstance(value, dict) else []


def show_examples(path: Path, fields: list[str]) -> tuple[dict[str, Any], list[RenderableType]]:
    with path.open("rb") as file:
        lines = sum(1 for line in file if line.strip())
    name = shlex.quote(str(path))
    rows = {
        "path": path,
        "size": size_text(path.stat().st_size),
        "examples": plural(lines, "line"),
        "fields": ", ".join(fields),
        "look at it": f"nano-llama finetune --model MODEL --data {name} --check-data",
        "learn it": f"nano-llama finetune --model MODEL --data {name} --out runs/mine",
    }
    return {"path": str(path), "examples": lines, "fields": fields}, [facts(rows, "Examples")]
