"""The three levels of a room: locate (a line and a cause), fix (its detector passes), trap (the learner's own test).

What runs a learner's code is a process with limits of time and memory, which is not a sandbox.
Tests: tests/learn/museum/test_grading.py.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nano_llama.core.limited_process import LimitedProcess, ProcessEnded
from nano_llama.learn.museum.catalogue import Edit, Room
from nano_llama.learn.museum.trees import PACKAGE, changed_lines, edited, same_lines, write_tree

SECONDS = 60.0  # of one run of tests, which takes about one where the machine is not busy
CLONE_SECONDS = 300.0
MEMORY_BYTES = 8 * 2**30  # of addresses
WORKER = PACKAGE / "learn" / "worker.py"
CLONE = PACKAGE.parent  # where tests/ is, in a clone


# -- locate


def is_the_line(room: Room, file: str, line: int, text: str) -> bool:
    """Whether line `line` of the learner's `text` of this file belongs to the fault, or stands beside it."""
    planted = edited(room.files, room.plant)[file]
    found = changed_lines(edited(room.files)[file], planted)
    return bool(found & same_lines(line, text, planted))


# -- running tests


@dataclass(frozen=True)
class Outcome:
    """How a file's tests ended on one tree."""

    passed: bool
    failed: str | None = None  # the first test that failed
    message: str = ""
    line: int | None = None  # of the file of tests
    broken: bool = False  # there was nothing to run, or it ran too long
    printed: str = ""
    seconds: float = 0.0  # of processor time

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_tests(tests: Path, tree: Path | None, seconds: float | None = None) -> Outcome:
    """A file's test_*() functions, with a tree (trees.py) in place of the package's files; None: the package itself.

    They are stopped after so many seconds, by default SECONDS.
    """
    seconds = SECONDS if seconds is None else seconds
    setup = {"module": "nano_llama.learn.museum.room_process", "memory": MEMORY_BYTES, "seconds": seconds}
    if tree is not None:
        setup["path"] = [str(tree.resolve()), *sys.path]
    process = LimitedProcess(WORKER, setup, "A room's check")
    try:
        reply = process.exchange({"file": str(tests.resolve())}, seconds)
    except ProcessEnded as ended:
        late = f"It ran longer than {seconds:.0f} s and was stopped."
        return Outcome(False, message=late if ended.late else "It ended its process.", broken=True)
    finally:
        process.popen.kill()
        process.popen.wait()
    return Outcome(passed=not reply["broken"] and reply["failed"] is None, **reply)


def run_on(tests: Path, texts: Mapping[str, str]) -> Outcome:
    """The same on a tree of these files."""
    with TemporaryDirectory() as folder:
        write_tree(Path(folder), texts)
        return run_tests(tests, Path(folder))


def run_detector(room: Room, tree: Path, seconds: float | None = None) -> Outcome:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "detector.py"
        file.write_text(room.detector, encoding="utf-8")
        return run_tests(file, tree, seconds)


# -- fix


def check_fix(room: Room, folder: Path) -> Outcome:
    """The room's detector on the learner's copy; then a clone's own tests of the room, where there are any."""
    outcome = run_detector(room, folder)
    tests = [CLONE / name for name in room.tests if (CLONE / name).is_file()]
    if not outcome.passed or not tests or find_spec("pytest") is None:
        return outcome
    return run_clone_tests(tests, folder)


def run_clone_tests(tests: list[Path], tree: Path) -> Outcome:
    """Pytest on test files of the clone, with the tree in place of the package's files."""
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line", *map(str, tests)]
    code = (
        f"import sys; sys.path.insert(0, {str(tree.resolve())!r}); import pytest; sys.exit(pytest.main({arguments!r}))"
    )
    try:
        ran = subprocess.run(
            [sys.executable, "-B", "-c", code], cwd=CLONE, capture_output=True, text=True, timeout=CLONE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Outcome(False, message=f"The package's own tests ran longer than {CLONE_SECONDS:.0f} s.", broken=True)
    lines = [line for line in ran.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if ran.returncode == 0:
        return Outcome(True)
    return Outcome(False, "the package's own tests", lines[0] if lines else ran.stdout[-1000:] + ran.stderr[-1000:])


# -- trap


def check_trap(room: Room, tests: Path) -> tuple[str | None, Outcome]:
    """The learner's tests on three trees -> where they do not do what they should (None: nowhere), and how they ended.

    "sound": they fail on the sound package. "plant", "variant": they pass there.
    """
    outcome = run_on(tests, edited(room.files))
    if not outcome.passed:
        return "sound", outcome
    edits: Mapping[str, tuple[Edit, ...]] = {"plant": room.plant, "variant": room.variant}
    for kind, some in edits.items():
        outcome = run_on(tests, edited(room.files, some))
        if outcome.passed:
            return kind, outcome
    return None, outcome
