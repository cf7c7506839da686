"""What a model can do before fine-tuning and after it: its loss, its answers, and what it still knows of other texts.

    examiner = Examiner(loop)                       loop: a run that is ready to fit
    before = examiner.examine(seconds)
    loop.fit()
    after = examiner.examine(seconds, before)       the same questions; run.py puts this together, report.py shows it

Answers are greedy and evaluations draw no random numbers, so that a run has the same bits with an examination as
without. The first is kept in the run's folder, for a run that is resumed. Tests: tests/training/finetune/.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nano_llama.core import files
from nano_llama.core.sampling import SamplingParams
from nano_llama.data.batches import Validation
from nano_llama.data.openings import Opening
from nano_llama.data.sft.dataset import ExampleDataset
from nano_llama.training.callback import Callback, RunFacts
from nano_llama.training.evaluation import evaluate
from nano_llama.training.finetune.held_out import held_out_text
from nano_llama.training.finetune.settings import FinetuneSettings
from nano_llama.training.loop import TrainingLoop

FILE = "before.json"
QUESTIONS = 32  # validation prompts that are answered
SHOWN = 6  # of them, whose answers are written to their end; the others only as long as they are right
SPARE = 8  # tokens that an answer may be longer than the expected one


@dataclass(frozen=True)
class Measured:
    """A mean over `tokens` targets."""

    loss: float  # nats per token
    bits_per_byte: float
    tokens: int


@dataclass(frozen=True)
class Answer:
    """To a validation prompt. right: it is the expected text exactly, and ended there. shown: it was written out."""

    prompt: str
    expected: str
    text: str
    right: bool
    shown: bool


@dataclass(frozen=True)
class Examination:
    """validation, held_out: None where there is no such text, or no time for it. seconds: that it took."""

    validation: Measured | None
    held_out: Measured | None
    answers: list[Answer]
    seconds: float

    @property
    def num_right(self) -> int:
        return sum(answer.right for answer in self.answers)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Examination":
        measured = {name: values[name] and Measured(**values[name]) for name in ("validation", "held_out")}
        answers = [Answer(**answer) for answer in values["answers"]]
        return cls(**measured, answers=answers, seconds=values["seconds"])


class Examiner:
    """Asks a run's model the same each time."""

    def __init__(
        self, loop: TrainingLoop, *, clock: Callable[[], float] = time.monotonic,
        interrupted: Callable[[], bool] = lambda: False,
    ):  # fmt: skip
        """interrupted: whether the user wants to wait no longer; then what was found so far is all."""
        settings, dataset = loop.settings, loop.dataset
        assert isinstance(settings, FinetuneSettings) and isinstance(dataset, ExampleDataset), "a run on examples"
        self.backend, self.tokenizer, self.ranks = loop.backend, loop.tokenizer, loop.ranks
        self.clock, self.interrupted = clock, interrupted
        self.most_tokens = settings.sample_tokens
        self.validation: Validation = loop.validator.data
        self.held_out = held_out_text(settings.held_out, loop.tokenizer, settings.context)
        self.questions = dataset.openings(QUESTIONS, settings.context)

    def examine(self, seconds: float, like: Examination | None = None) -> Examination:
        """Measure and ask, for about so many seconds in all; at least half of them for answers.

        like: an earlier one; no more than in that is measured, so that the two can be compared.
        """
        begin = self.clock()
        with self.backend.device.computing(), self.backend.use_averaged_weights():
            held_out = self._measure(self.held_out, begin + seconds / 4, like.held_out if like else None)
            validation = self._measure(self.validation, begin + seconds / 2, like.validation if like else None)
            answers: list[Answer] = []
            for number, question in enumerate(self.questions[: None if like is None else len(like.answers)]):
                answer = self._answer(question, number < SHOWN, begin + seconds)
                if answer is None:
                    break
                answers.append(answer)
        return Examination(validation, held_out, answers, self.clock() - begin)

    def _is_over(self, until: float) -> bool:
        """Whether any rank says so: they go on, or stop, together."""
        return any(self.ranks.gathered(float(self.interrupted() or self.clock() > until)))

    def _measure(self, data: Validation | None, until: float, like: Measured | None) -> Measured | None:
        """On the whole of it, or on the head that there is time for, or that was measured before."""
        if data is None or not data.num_targets:
            return None
        most, counted = data.num_targets if like is None else like.tokens, 0

        def count(tokens: int) -> None:
            nonlocal counted
            counted += tokens

        found = evaluate(
            self.backend.eval_loss_sum, data, keep_head=True, clock=self.clock, on_batch=count,
            give_up=lambda seconds: counted >= most or self._is_over(until - seconds),
        )  # fmt: skip
        return Measured(found.loss, found.bits_per_byte, found.tokens) if found else None

    def _answer(self, question: Opening, shown: bool, until: float) -> Answer | None:
        """The model's own, as long as it may still be right or is shown; None: there was no time for it."""
        expected = self.tokenizer.encode(question.answer, add_bos=False)
        most = len(expected) + SPARE
        if shown:  # enough to see what it is where it is not yet like the expected one
            most = max(most, min(2 * len(expected), self.most_tokens))
        ends = self.tokenizer.stop_ids
        params = SamplingParams(temperature=0.0, max_tokens=most, seed=0, stop_token_ids=sorted(ends))
        written: list[int] = []
        for token in self.backend.generate(question.ids, params):
            if self._is_over(until):
                return None
            written.append(token)
            if not shown and token not in ends and not self._may_be_right(written, expected, question.answer):
                break
        text = self.tokenizer.decode(written, continues=True)
        right = text.strip() == question.answer.strip() and bool(written) and written[-1] in ends
        return Answer(question.text, question.answer, text, right, shown)

    def _may_be_right(self, written: list[int], expected: list[int], answer: str) -> bool:
        if written == expected[: len(written)]:
            return True
        text = self.tokenizer.decode(written, continues=True).rstrip("\ufffd")  # the end may be half a character
        return answer.strip().startswith(text.strip())


class KeepBefore(Callback):
    """Writes what was found before the first step into the run's folder, as soon as there is one."""

    def __init__(self) -> None:
        self.found: Examination | None = None

    def started(self, facts: RunFacts) -> None:
        if self.found is not None:
            files.write_json(facts.out / FILE, self.found.to_json())


def read_before(folder: Path) -> Examination | None:
    """What was found before the run's first step; None: nothing was kept."""
    path = folder / FILE
    return Examination.from_json(files.read_json(path, "examination")) if path.is_file() else None
