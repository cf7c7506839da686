"""Samples: what the model generates after the same few openings at each evaluation, logged in samples.md.

The openings come from the validation text, or from the user. The random numbers depend on seed and position alone, so
what changes from one evaluation to the next is the model. Tests: tests/training/test_samples.py.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_llama.core import files
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.training.settings import TrainSettings

Generate = Callable[[Sequence[int], SamplingParams], Iterator[int]]  # prompt ids -> the ids that follow, one by one

TEMPERATURE = 0.8
OPENING_CHARACTERS = 32
MARK = "▸"  # between an opening and its continuation
HEAD = "Openings, and what the model generates after them (▸), at each evaluation.\n"


@dataclass(frozen=True)
class Sample:
    """One opening and its continuation."""

    opening: str
    text: str


class SampleLogger:
    """Draws the samples of one run, always after the same openings."""

    def __init__(self, settings: TrainSettings, tokenizer: Any, split: Any):
        self.tokenizer, self.tokens, self.seed = tokenizer, settings.sample_tokens, settings.seed
        self.openings = openings(split, tokenizer, settings.samples, settings.context // 2)
        if settings.sample_prompt:
            self.openings = [settings.sample_prompt] * settings.samples

    def draw(self, generate: Generate, give_up: Callable[[], bool] = lambda: False) -> list[Sample] | None:
        """A sample of each opening; None once `give_up`, called before every token, returns True."""
        samples = []
        for number, opening in enumerate(self.openings):
            params = SamplingParams(temperature=TEMPERATURE, max_tokens=self.tokens, seed=self.seed + number)
            written: list[int] = []
            for token in generate(self.tokenizer.encode(opening), params):
                if give_up():
                    return None
                written.append(token)
            samples.append(Sample(opening, self.tokenizer.decode(written, continues=True)))
        return samples


def check_sample_prompt(settings: TrainSettings, tokenizer: Any) -> None:
    """Raises UserError for a prompt that the tokenizer cannot encode, or that leaves no room for a sample."""
    tokens = len(tokenizer.encode(settings.sample_prompt)) if settings.sample_prompt else 0
    if tokens >= settings.context:
        raise UserError(
            f"sample_prompt has {tokens:,} tokens; a context of {settings.context:,} leaves no room for a sample.",
            hint="Give a shorter --sample-prompt.",
        )


def openings(split: Any, tokenizer: Any, count: int, most_tokens: int) -> list[str]:
    """`count` openings, spread evenly over a split: the first words of a line each, at most `most_tokens` tokens."""
    found = []
    for number in range(count):
        begin = number * split.num_tokens // count
        piece = tokenizer.decode(split.read(begin, min(256, split.num_tokens - begin)).tolist(), continues=True)
        line = (piece if number == 0 else piece.partition("\n")[2] or piece).strip().strip("\ufffd")
        text = line[:OPENING_CHARACTERS]
        text = (text.rpartition(" ")[0] or text) if len(line) > len(text) else text
        while len(text) > 1 and len(tokenizer.encode(text)) > max(most_tokens, 1):
            text = text[: len(text) // 2]
        if text:
            found.append(text)
    return found


class SampleFile:
    """samples.md: a section per evaluation. `keep_to` cuts an existing file back to that step."""

    def __init__(self, path: Path, keep_to: int | None = None):
        self.path = path
        kept = ""
        if keep_to is not None and path.is_file():
            sections = re.split(r"(?m)^(?=## step \d)", path.read_text(encoding="utf-8", errors="replace"))[1:]
            kept = "".join(text for text in sections if _step(text) <= keep_to)
        files.write_text(path, f"{HEAD}\n{kept}")

    def write(self, step: int, val_loss: float, samples: Sequence[Sample]) -> None:
        """Append a section. The text is indented, so no line of it can be taken for a heading."""
        texts = [f"{sample.opening}{MARK}{sample.text}" for sample in samples]
        blocks = ["\n".join(f"    {line}".rstrip() for line in text.splitlines()) for text in texts]
        section = "\n\n    ---\n\n".join(blocks)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"## step {step}, validation loss {val_loss:.4f}\n\n{section}\n\n")
        except OSError as error:
            raise EnvironmentFault(
                f"Cannot write {self.path}: {error.strerror}.",
                hint="Free some space; then use --resume.",
            ) from error


def _step(section: str) -> int:
    found = re.match(r"## step (\d+)", section)
    assert found, "sections were split at their headings"
    return int(found.group(1))
