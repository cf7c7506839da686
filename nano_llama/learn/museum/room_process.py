"""The tests of one file, in the process of learn/worker.py, which imports a room's tree in place of the package.

Tests: tests/learn/museum/test_grading.py.
"""

import io
import time
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import numpy as np

PRINTED = 2000  # characters of what the tests print that are shown


def answer(file: str) -> dict[str, Any]:
    """{"failed": name or None, "message", "line": of `file`, "broken", "printed", "seconds": of processor time}.

    broken: the file cannot be imported, or has no tests; then `message` says why.
    """
    printed = io.StringIO()
    reply: dict[str, Any] = {"failed": None, "message": "", "line": None, "broken": False}
    with redirect_stdout(printed), redirect_stderr(printed), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a fault may overflow, which is not what its test has to say
        _run(file, reply)
    return {**reply, "printed": printed.getvalue()[:PRINTED], "seconds": time.process_time()}


def _run(file: str, reply: dict[str, Any]) -> None:
    spec = spec_from_file_location("room_tests", file)
    assert spec is not None and spec.loader is not None, f"{file} is Python"
    module = module_from_spec(spec)
    try:  # SystemExit and what pytest.fail raises do not derive from Exception
        spec.loader.exec_module(module)
    except BaseException as error:
        reply.update(broken=True, message=_said(error), line=_line(error, file))
        return
    tests = {name: thing for name, thing in vars(module).items() if name.startswith("test_") and callable(thing)}
    if not tests:
        reply.update(broken=True, message="It has no function whose name begins with test_.")
    for name, test in tests.items():
        try:
            test()
        except BaseException as error:
            reply.update(failed=name, message=_said(error), line=_line(error, file))
            return


def _said(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, AssertionError):
        return text or "an assertion does not hold"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _line(error: BaseException, file: str) -> int | None:
    """The last line of the file that was being run."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None
