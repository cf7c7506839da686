"""One stage of a check, in the process of worker.py: the learner's file, the reference, the cases, the verdict.

A file is loaded anew when its text changed. Tests: tests/learn/test_run_check.py.
"""

import ast
import io
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from itertools import dropwhile, takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nano_llama.learn.catalogue import read_wrong
from nano_llama.learn.checks import STAGES, Case, Difference, Rejected, compare, shown_apart
from nano_llama.learn.patterns import VAGUE, usual_cause

PRINTED = 2000  # characters of what the learner's code prints that are shown


class Failed(Exception):
    """What is reported: the answer's fields."""

    def __init__(self, message: str, **more: Any):
        super().__init__(message)
        self.reply = {"passed": False, "message": message, **more}


def answer(folder: str, imports: list[str], file: str, stage: str, seed: int) -> dict[str, Any]:
    """The verdict of one stage on a file: {"passed": true, "cases": n, "printed": ...}, or the fields of Verdict."""
    with _caught() as printed:
        try:
            module = _load_learners(file, tuple(imports))
            count = 0 if stage == "imports" else _run_cases(Path(folder), module, stage, seed)
            reply: dict[str, Any] = {"passed": True, "cases": count}
        except Failed as failed:
            reply = failed.reply
    return {**reply, "printed": printed.getvalue()[:PRINTED]}


def _run_cases(folder: Path, module: ModuleType, stage: str, seed: int) -> int:
    reference, count = load(folder / "solution.py"), 0
    for case in _cases(folder, seed):
        if case.stage != stage:
            continue
        count += 1
        outcome, difference = _outcome(case, module, reference)
        if difference is not None:
            raise _failed(case, folder, seed, outcome, difference, module)
    return count


def _cases(folder: Path, seed: int) -> Iterator[Case]:
    """In the order in which they are tried."""
    return iter(sorted(load(folder / "check.py").cases(seed), key=lambda case: STAGES.index(case.stage)))


def _outcome(case: Case, module: ModuleType, reference: ModuleType) -> tuple[Any, Difference | None]:
    """What a module makes of a case, its outputs or what it raises; and what is wrong with that."""
    outputs = None
    try:
        with np.errstate(all="ignore"):
            outputs = case.run(module)
            return outputs, case.difference(module, outputs, reference)
    except Rejected as rejected:
        return str(rejected), Difference("", str(rejected))
    except (Exception, SystemExit) as error:
        return (outputs or error), Difference("", f"{type(error).__name__}: {error}")


def _failed(case: Case, folder: Path, seed: int, outcome: Any, difference: Difference, module: ModuleType) -> Failed:
    """All that the learner is told."""
    reference = load(folder / "solution.py")
    known = _known_mistake(case, folder, seed, outcome)
    texts = (None, None) if difference.expected is None else shown_apart(difference.expected, difference.found)
    return Failed(
        difference.message,
        case=case.label,
        seed=case.seed,
        inputs=case.arguments(reference),
        where=_place(outcome, module) if isinstance(outcome, BaseException) else "",
        index=difference.index,
        expected=texts[0],
        found=texts[1],
        says=known or _pattern(case, difference, folder, seed, module),
        known=bool(known),
    )


def _known_mistake(case: Case, folder: Path, seed: int, outcome: Any) -> str:
    """The sentence of the kept wrong solution that gets as far as this case, and there ends the same way, if any."""
    for file in sorted((folder / "wrong").glob("*.py")):
        first, ending = _first_failure(file, seed, case.stage)
        if first == (case.stage, case.label) and _alike(outcome, ending, case):
            return read_wrong(file).says
    return ""


@cache
def _first_failure(wrong: Path, seed: int, last_stage: str) -> tuple[tuple[str, str] | None, Any]:
    """Stage and label of the case at which a wrong solution fails, up to that stage, and its outcome there."""
    folder = wrong.parents[1]
    module, reference = load(wrong), load(folder / "solution.py")
    for case in _cases(folder, seed):
        if STAGES.index(case.stage) > STAGES.index(last_stage):
            break
        outcome, difference = _outcome(case, module, reference)
        if difference is not None:
            return (case.stage, case.label), outcome
    return None, None


def _alike(outcome: Any, ending: Any, case: Case) -> bool:
    if isinstance(outcome, dict) and isinstance(ending, dict):
        return compare(outcome, ending, 100 * case.tolerance, case.floor) is None
    if isinstance(outcome, BaseException):
        return type(outcome) is type(ending)
    return isinstance(outcome, str) and outcome == ending


def _pattern(first: Case, difference: Difference, folder: Path, seed: int, module: ModuleType) -> str:
    """What such a result usually means, seen in the case that failed or in a larger one of its stage."""
    if first.holds is not None or not difference.output:
        return ""
    reference, vague = load(folder / "solution.py"), ""
    cases = dropwhile(lambda case: (case.stage, case.label) != (first.stage, first.label), _cases(folder, seed))
    for case in takewhile(lambda case: case.stage == first.stage, cases):
        found, wrong = _outcome(case, module, reference)
        wanted = case.expected() if case.expected is not None else case.run(reference)
        if wrong is not None and isinstance(found, dict) and difference.output in found.keys() & wanted.keys():
            cause = usual_cause(found[difference.output], wanted[difference.output], case.sizes)
            if cause and cause != VAGUE:
                return cause
            vague = vague or cause
    return vague


def _load_learners(file: str, imports: tuple[str, ...]) -> ModuleType:
    """The learner's module. Raises Failed where it does not parse, imports what it may not, or fails by itself."""
    try:
        text = Path(file).read_text(encoding="utf-8")
        tree = ast.parse(text, file)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
        raise Failed(f"Python cannot read it: {line}{getattr(error, 'msg', error)}.") from None
    for name in _imported(tree):
        allowed = name.split(".")[0] in sys.stdlib_module_names or name.split(".")[0] == "numpy"
        if not allowed and name not in imports:
            may = ", ".join(("the standard library", "numpy", *imports))
            raise Failed(f"It imports {name}; this exercise is to be solved with {may}.")
    try:
        return _module(file, text)
    except (Exception, SystemExit) as error:
        raise Failed(f"Importing it fails: {type(error).__name__}: {error}") from None


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module if node.module and not node.level else "."


@cache
def _module(file: str, text: str) -> ModuleType:
    module = ModuleType("learners")
    module.__file__ = file
    exec(compile(text, file, "exec"), module.__dict__)
    return module


@cache
def load(file: Path) -> ModuleType:
    """A file of an exercise as a module."""
    spec = spec_from_file_location(f"exercise_{file.stem}", file)
    assert spec is not None and spec.loader is not None, f"{file} is a Python file"
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _place(error: BaseException, module: ModuleType) -> str:
    """The line of the learner's file that raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == module.__file__]
    return f"line {frames[-1].lineno}: {frames[-1].line}" if frames else ""


@contextmanager
def _caught() -> Iterator[io.StringIO]:
    """What is printed meanwhile, warnings included."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        yield printed
