"""Do the exercises keep their promises? For their authors; the whole takes minutes, one exercise seconds.

Every stub fails. Every reference passes, in under 5 seconds (and the time of its training). Every wrong solution that
is kept is rejected by the stage and with the sentence that it names. Of the references' mutants (mutants.py) at least
95% are rejected, before any training. No line of a solution stands in its stub. A reference imports nothing but what
its exercise allows, and that is of modules that its chapter knows. Hints are there.
Tests: tests/learn/test_dev_check.py.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nano_llama.learn.catalogue import HINT_STAGES, KINDS, Exercise
from nano_llama.learn.mutants import mutants
from nano_llama.learn.run_check import Checker

REFERENCE_SECONDS = 5.0
WRONG_SOLUTIONS = 4  # of each exercise, at least
MUTANTS = 40  # of each reference, at most
REJECTED = 0.95
MUTANT_STAGE_SECONDS = 5.0  # a mutant may loop for ever

# The first chapter whose exercises may import a module of the package.
KNOWN_FROM = {
    "nano_llama.vol1_numpy.gradcheck": 4,
    "nano_llama.vol1_numpy.ops.linear": 5,
    "nano_llama.vol1_numpy.ops.embedding": 5,
    "nano_llama.vol1_numpy.ops.softmax": 6,
    "nano_llama.vol1_numpy.ops.cross_entropy": 6,
}


@dataclass
class Report:
    """What was found; `good` when no promise is broken."""

    exercises: int = 0
    wrong: int = 0
    named: int = 0  # wrong solutions recognized by their sentence
    mutants: int = 0
    survivors: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds of a reference
    faults: list[str] = field(default_factory=list)

    @property
    def rejected(self) -> float:
        return 1 - len(self.survivors) / self.mutants if self.mutants else 1.0

    @property
    def good(self) -> bool:
        """One survivor of few is not a fault: some mutants mean the same as the solution."""
        return not self.faults and len(self.survivors) <= max(1, (1 - REJECTED) * self.mutants)

    def to_json(self) -> dict[str, Any]:
        return {
            "good": self.good,
            "exercises": self.exercises,
            "wrong_solutions": self.wrong,
            "named": self.named,
            "mutants": self.mutants,
            "mutants_rejected": self.rejected,
            "survivors": self.survivors,
            "slowest_reference_seconds": self.slowest,
            "faults": self.faults,
        }

    def lines(self) -> list[str]:
        return [
            *(f"fault: {text}" for text in self.faults),
            *(f"survives: {text}" for text in self.survivors),
            f"{self.exercises} exercises: every stub fails, the slowest reference takes {self.slowest:.2f} s;"
            f" {self.named} of {self.wrong} wrong solutions are rejected as they say;"
            f" {self.rejected:.1%} of {self.mutants} mutants are rejected."
            f" {'Good.' if self.good else 'Not good.'}",
        ]


def check_exercises(every: Sequence[Exercise], say: Callable[[str], None], num_mutants: int = MUTANTS) -> Report:
    report = Report()
    checker, impatient = Checker(), Checker(MUTANT_STAGE_SECONDS, training=False)
    try:
        for exercise in every:
            report.exercises += 1
            before = len(report.faults), len(report.survivors)
            report.faults += [f"{exercise.name}: {text}" for text in about_files(exercise)]
            _check_solutions(exercise, checker, report)
            if exercise.kind != "M":  # another test may be as good as ours
                _check_mutants(exercise, impatient, report, num_mutants)
            after = len(report.faults) - before[0], len(report.survivors) - before[1]
            say(f"{exercise.name}: {after[0]} faults, {after[1]} mutants survive")
    finally:
        checker.close()
        impatient.close()
    return report


def about_files(exercise: Exercise) -> list[str]:
    """What can be seen without running anything."""
    found = []
    if not (1 <= exercise.stars <= 3 and exercise.minutes > 0 and exercise.kind in KINDS and exercise.title):
        found.append("stars, minutes, kind or title are not right")
    if len(exercise.hints) != len(HINT_STAGES) or not all(exercise.hints) or not exercise.statement:
        found.append(f"a statement and {len(HINT_STAGES)} hints are needed")
    chapter = int(exercise.chapter[:2])
    late = [name for name in exercise.imports if chapter < KNOWN_FROM.get(name, 99)]
    if late:
        found.append(f"its chapter does not know {', '.join(late)} yet")
    shared = _statements(exercise.solution) & _statements(exercise.stub)
    if shared:
        found.append(f"the stub holds a line of the solution: {min(shared)}")
    count = len(exercise.wrong_solutions())
    if count < WRONG_SOLUTIONS:
        found.append(f"{count} wrong solutions; at least {WRONG_SOLUTIONS} are kept")
    return found


def _statements(source: str) -> set[str]:
    """The lines that do something: not imports, signatures, bare returns of names, or comments."""
    lines = (line.split("#")[0].strip() for line in source.splitlines())
    return {line for line in lines if any(sign in line for sign in "=+*@[") and not line.startswith(("import", "def"))}


def _check_solutions(exercise: Exercise, checker: Checker, report: Report) -> None:
    def fault(text: str) -> None:
        report.faults.append(f"{exercise.name}: {text}")

    if checker.check(exercise, exercise.folder / "stub.py", seed=0).passed:
        fault("the stub passes")
    verdict = checker.check(exercise, exercise.folder / "solution.py", seed=0)
    if not exercise.training_seconds:
        report.slowest = max(report.slowest, verdict.seconds)
    if not verdict.passed:
        fault(f"the reference fails at {verdict.stage}, {verdict.case}: {verdict.message}")
    if verdict.seconds > REFERENCE_SECONDS + exercise.training_seconds:
        fault(f"the reference takes {verdict.seconds:.1f} s")
    for wrong in exercise.wrong_solutions():
        report.wrong += 1
        verdict = checker.check(exercise, wrong.file, seed=0)
        if verdict.passed:
            fault(f"{wrong.file.name} passes")
        elif (verdict.stage, verdict.says) != (wrong.stage, wrong.says):
            fault(
                f"{wrong.file.name} is rejected at {verdict.stage}, {verdict.case!r}: {verdict.says or verdict.message}"
            )
        else:
            report.named += 1


def _check_mutants(exercise: Exercise, checker: Checker, report: Report, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mutant.py"
        for mutant in mutants(exercise.solution, count):
            report.mutants += 1
            file.write_text(mutant.source, encoding="utf-8")
            if checker.check(exercise, file, seed=0).passed:
                report.survivors.append(f"{exercise.name}, {mutant.what}")
