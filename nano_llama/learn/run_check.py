"""A check from outside: the stages in order, each asked of a process with limits; the first that fails is the verdict.

    verdict = check_file(exercise("qk_norm"), file)
    verdict.passed, verdict.stage, verdict.message, verdict.says

The process is not a sandbox: it bounds time and memory, and a learner's file may do whatever the learner may.
Tests: tests/learn/test_run_check.py.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nano_llama.core.limited_process import LimitedProcess, ProcessEnded
from nano_llama.learn.catalogue import Exercise
from nano_llama.learn.checks import STAGES, TRAINING

STAGE_SECONDS = 20.0
MEMORY_BYTES = 2 * 2**30

OnStage = Callable[[str, int], None]  # a stage that passed, and how many cases it had


@dataclass(frozen=True)
class Verdict:
    """How a check ended. Of the first stage that failed: what was called, what came, and what that usually means."""

    passed: bool
    seconds: float
    stage: str | None = None
    message: str = ""
    case: str = ""  # its sizes, or what is special about it
    seed: int | None = None  # repeats it
    inputs: str = ""
    where: str = ""  # the learner's line that raised
    index: list[int] | None = None  # of the worst entry
    expected: str | None = None
    found: str | None = None
    says: str = ""  # what this usually means
    known: bool = False  # a wrong solution that is kept gives the same
    printed: str = ""  # by the learner's code

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Checker:
    """Checks files, in one process that is started anew where one of them ended it.

    training: whether the stage of that name, which takes minutes, is asked too.
    """

    def __init__(self, stage_seconds: float = STAGE_SECONDS, training: bool = True):
        self._seconds, self._training = stage_seconds, training
        self._process: LimitedProcess | None = None

    def check(self, exercise: Exercise, file: Path, seed: int, on_stage: OnStage | None = None) -> Verdict:
        began = time.perf_counter()
        for stage in STAGES:
            if stage == TRAINING and not (self._training and exercise.training_seconds):
                continue
            reply = self._ask(exercise, file, stage, seed)
            if not reply.pop("passed"):
                return Verdict(False, time.perf_counter() - began, stage, **reply)
            if on_stage is not None:
                on_stage(stage, reply["cases"])
        return Verdict(True, time.perf_counter() - began, printed=reply["printed"])

    def _ask(self, exercise: Exercise, file: Path, stage: str, seed: int) -> dict[str, Any]:
        request = {
            "folder": str(exercise.folder),
            "imports": list(exercise.imports),
            "file": str(file),
            "stage": stage,
            "seed": seed,
        }
        if stage == TRAINING:
            process = _start(exercise.training_seconds)
            try:
                return _reply(process, request, exercise.training_seconds)
            finally:
                _end(process)
        if self._process is None or not self._process.usable():
            self._process = _start(self._seconds)
        return _reply(self._process, request, self._seconds)

    def close(self) -> None:
        if self._process is not None:
            _end(self._process)


def _start(seconds: float) -> LimitedProcess:
    setup = {"module": "nano_llama.learn.stages", "memory": MEMORY_BYTES, "seconds": seconds}
    return LimitedProcess(Path(__file__).with_name("worker.py"), setup, "A check")


def _reply(process: LimitedProcess, request: dict[str, Any], seconds: float) -> dict[str, Any]:
    try:
        return process.exchange(request, seconds)
    except ProcessEnded as ended:
        return {"passed": False, "message": _ended(ended)}


def _end(process: LimitedProcess) -> None:
    process.popen.kill()
    process.popen.wait()


def _ended(ended: ProcessEnded) -> str:
    if ended.late:
        return f"It ran longer than {ended.seconds:.0f} s and was stopped. Is there a loop that does not end?"
    return f"It ended its process (status {ended.status}): a crash, an exit, or more than {MEMORY_BYTES >> 30} GiB."


def check_file(exercise: Exercise, file: Path, seed: int = 0, on_stage: OnStage | None = None) -> Verdict:
    """One check in a process of its own."""
    checker = Checker()
    try:
        return checker.check(exercise, file, seed, on_stage)
    finally:
        checker.close()
