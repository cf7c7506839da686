"""Samples: what the model generates after the same few openings at each evaluation, logged in samples.md.

The openings come from the validation split (data/openings.py), or from the user. The random numbers depend on seed and
position alone, so what changes from one evaluation to the next is the model. Tests: tests/training/test_samples.py.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_llama.core import files
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.data.openings import Opening
from nano_llama.training.settings import TrainSettings

Generate = Callable[[Sequence[int], SamplingParams], Iterator[int]]  # prompt ids -> the ids that follow, one by one

MARK = "▸"  # between an opening and its continuation
HEAD = "Openings, and what the model generates after them (▸), at each evaluation.\n"


@dataclass(frozen=True)
class Sample:
    """One opening and its continuation. answer: what should have followed, where the data says it."""

    opening: str
    text: str
    answer: str = ""


class SampleLogger:
    """Draws the samples of one run, always after the same openings."""

    def __init__(self, settings: TrainSettings, tokenizer: Any, openings: Sequence[Opening]):
        """openings: from the data; the user's own prompt replaces them."""
        self.settings, self.tokenizer, self.openings = settings, tokenizer, openings
        if settings.sample_prompt:
            self.openings = [_opening(settings.sample_prompt, settings, tokenizer)] * settings.samples

    def draw(self, generate: Generate, give_up: Callable[[], bool] = lambda: False) -> list[Sample] | None:
        """A sample of each opening; None once `give_up`, called before every token, returns True."""
        samples = []
        for number, opening in enumerate(self.openings):
            params = SamplingParams(
                temperature=self.settings.sample_temperature, max_tokens=self.settings.sample_tokens,
                seed=self.settings.seed + number, stop_token_ids=sorted(self.tokenizer.stop_ids),
            )  # fmt: skip
            written: list[int] = []
            for token in generate(opening.ids, params):
                if give_up():
                    return None
                written.append(token)
            samples.append(Sample(opening.text, self.tokenizer.decode(written, continues=True), opening.answer))
        return samples


def _opening(prompt: str, settings: TrainSettings, tokenizer: Any) -> Opening:
    """The user's own prompt; to a model that learns to answer it is a question, where it has a template for one."""
    if settings.from_examples and tokenizer.chat_templates:
        messages = [{"role": "user", "content": prompt}]
        return Opening(prompt, tokenizer.encode_chat(messages, **settings.template_variables))
    return Opening(prompt, tokenizer.encode(prompt))


def check_sample_prompt(settings: TrainSettings, tokenizer: Any) -> None:
    """Raises UserError for a prompt that the tokenizer cannot encode, or that leaves no room for a sample."""
    tokens = len(_opening(settings.sample_prompt, settings, tokenizer).ids) if settings.sample_prompt else 0
    if tokens >= settings.context:
        raise UserError(
            f"sample_prompt has {tokens:,} tokens; a context of {settings.context:,} leaves no room for a sample.",
            hint="Give a shorter --sample-prompt.",
        )


class SampleFile:
    """samples.md: a section per evaluation. `keep_to` cuts an existing file back to that step."""

    def __init__(self, path: Path, keep_to: int | None = None, head: str = HEAD):
        self.path = path
        kept = ""
        if keep_to is not None and path.is_file():
            sections = re.split(r"(?m)^(?=## step \d)", path.read_text(encoding="utf-8", errors="replace"))[1:]
            kept = "".join(text for text in sections if _step(text) <= keep_to)
        files.write_text(path, f"{head}\n{kept}")

    def write(self, step: int, val_loss: float, samples: Sequence[Sample]) -> None:
        """Append a section. The text is indented, so no line of it can be taken for a heading."""
        expected = [f"\n(expected: {sample.answer})" if sample.answer else "" for sample in samples]
        texts = [f"{one.opening}{MARK}{one.text}{more}" for one, more in zip(samples, expected, strict=True)]
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
