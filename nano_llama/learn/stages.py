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
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nano_llama.learn.catalogue import read_wrong
from nano_llama.learn.checks import Case, Difference, Outputs, Rejected, compare, shown
from nano_llama.learn.patterns import usual_cause

PRINTED = 2000  # characters of what the learner's code prints that are shown


class Failed(Exception):
    """What is reported: the answer's fields."""

    def __init__(self, message: str, **more: Any):
        super().__init__(message)
        self.reply = {"passed": False, "message": message, **more}


def run_stage(folder: str, imports: list[str], file: str, stage: str, seed: int) -> dict[str, Any]:
    """The verdict of one stage on a file, as worker.py sends it."""
    with _caught() as printed:
        try:
            text = Path(file).read_text(encoding="utf-8")
            module = _load_learners(file, text, tuple(imports))
            count = 0 if stage == "imports" else _run_cases(Path(folder), module, stage, seed)
            reply: dict[str, Any] = {"passed": True, "cases": count}
        except Failed as failed:
            reply = failed.reply
    return {**reply, "printed": printed.getvalue()[:PRINTED]}


def _run_cases(folder: Path, module: ModuleType, stage: str, seed: int) -> int:
    count = 0
    for case in load(folder / "check.py").cases(seed):
        if case.stage != stage:
            continue
        count += 1
        _run_case(case, folder, module)
    return count


def _run_case(case: Case, folder: Path, module: ModuleType) -> None:
    """Raises Failed with all that the learner is told."""
    reference = load(folder / "solution.py")

    def failed(message: str, **more: Any) -> Failed:
        return Failed(message, case=case.label, seed=case.seed, inputs=case.arguments(reference), **more)

    try:
        with np.errstate(all="ignore"):
            outputs = case.run(module)
            difference = case.difference(module, outputs, reference)
    except Rejected as rejected:
        raise failed(str(rejected), says=_said(case, folder, str(rejected))) from None
    except (Exception, SystemExit) as error:
        message = f"{type(error).__name__}: {error}"
        raise failed(message, where=_place(error, module), says=_said(case, folder, type(error))) from None
    if difference is None:
        return
    known = _said(case, folder, outputs)
    raise failed(
        difference.message,
        index=difference.index,
        expected=None if difference.expected is None else shown(difference.expected),
        found=None if difference.expected is None else shown(difference.found),
        says=known or _pattern(case, difference, outputs, reference),
        known=bool(known),
    )


def _said(case: Case, folder: Path, outcome: Outputs | str | type) -> str:
    """The sentence of the kept wrong solution that ends the same way in this case, if there is one."""
    for file in sorted((folder / "wrong").glob("*.py")):
        try:
            with np.errstate(all="ignore"):
                ending: Any = case.run(load(file))
        except Rejected as rejected:
            ending = str(rejected)
        except Exception as error:
            ending = type(error)
        if isinstance(outcome, dict) and isinstance(ending, dict):
            alike = compare(outcome, ending, 1e-7) is None
        else:
            alike = outcome == ending
        if alike:
            return read_wrong(file).says
    return ""


def _pattern(case: Case, difference: Difference, outputs: Outputs, reference: ModuleType) -> str:
    if case.holds is not None or difference.output not in outputs:
        return ""
    wanted = case.expected() if case.expected is not None else case.run(reference)
    return usual_cause(outputs[difference.output], wanted.get(difference.output), case.sizes)


def _load_learners(file: str, text: str, imports: tuple[str, ...]) -> ModuleType:
    """The learner's module. Raises Failed where it does not parse, imports what it may not, or fails by itself."""
    try:
        tree = ast.parse(text, file)
    except (SyntaxError, ValueError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) else ""
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
