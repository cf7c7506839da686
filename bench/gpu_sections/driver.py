"""Runs sections one after another, each in a process of its own, within the seconds of a call. Free of torch.

`run` is the policy: what still fits, what is skipped. `Worker` is one process: started ahead, so that its imports are
done while the section before it runs, told to go, and killed with all that it started at its limit.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol, TextIO

from gpu_sections import ROOT
from gpu_sections.table import Section, by_name

CALL_SECONDS = 345.0  # of six minutes; the rest is the start and the end of the command
REHEARSAL_LIMIT = 240.0  # of a section on a CPU, which takes as long as it takes
FACTS = ("card", "torch", "python", "date")  # of the machine, as the worker finds it
Line = dict[str, Any]


class Process(Protocol):
    def go(self, limit: float) -> Line: ...

    def end(self) -> None: ...


def run(
    sections: Sequence[Section], begin: Callable[[Section], Process], *, seconds: float = CALL_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Line]:  # fmt: skip
    """Each section's line, as soon as it ended. begin: starts the process of a section, which then waits for `go`."""
    end = clock() + seconds
    ahead: dict[str, Process] = {}
    try:
        for number, section in enumerate(sections):
            left = end - clock()
            if left < section.seconds:
                what = f"skipped: {section.seconds} s are needed, {max(left, 0):.0f} are left"
                yield line_of(section, {"status": "skipped", "errors": [what]}, 0.0)
                continue
            process = ahead.pop(section.name, None) or begin(section)
            began = clock()
            following = next((s for s in sections[number + 1 :] if s.seconds <= left - section.seconds), None)
            if following and following.name not in ahead:
                ahead[following.name] = begin(following)
            try:
                said = process.go(min(section.limit, left))
            finally:
                process.end()
            yield line_of(section, said, clock() - began)
    finally:
        for process in ahead.values():
            process.end()


def line_of(section: Section, said: Line, seconds: float) -> Line:
    """What is printed of a section. passed: it ended by itself, without an error, and every bar it has is met.

    seconds: those of the process, for a section that did not come to say its own.
    """
    rows, errors = said.get("rows", []), said.get("errors", [])
    good = said["status"] == "done" and not errors and all(row["met"] is not False for row in rows)
    return {
        "section": section.name, "status": said["status"], "passed": good and bool(rows),
        "seconds": round(said.get("seconds", seconds), 1),
        **{fact: said.get(fact) for fact in FACTS}, "rows": rows, "notes": said.get("notes", {}), "errors": errors,
    }  # fmt: skip


class Worker:
    """The process of one section. It speaks lines of JSON: after each row all that it has found so far."""

    def __init__(self, section: Section, options: dict[str, Any], log: TextIO):
        self.section, self.options = section, options
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "gpu_sections.worker", section.module, section.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, encoding="utf-8", start_new_session=True,
            env=environment(options["rehearse"]),
        )  # fmt: skip
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.popen.stdout is not None, "it has a pipe"
        for text in self.popen.stdout:
            self.lines.put(text)
        self.lines.put(None)

    def go(self, limit: float) -> Line:
        """What it found, in full or up to its end: done, failed (an error), crashed or killed (at the limit)."""
        limit = REHEARSAL_LIMIT if self.options["rehearse"] else limit
        end, found = time.monotonic() + limit, Line(errors=[])
        assert self.popen.stdin is not None, "it has a pipe"
        try:
            judge = self.section.correctness or not self.options["rehearse"]
            self.popen.stdin.write(json.dumps({**self.options, "limit": limit, "judge": judge}) + "\n")
            self.popen.stdin.flush()
            while "status" not in found:
                text = self.lines.get(timeout=max(end - time.monotonic(), 0.001))
                if text is None:
                    return self._ended(found, "crashed", f"the process ended with status {self.popen.wait()}")
                found = json.loads(text)
        except queue.Empty:
            return self._ended(found, "killed", f"not done after its limit of {limit:.0f} s")
        except OSError as error:
            return self._ended(found, "crashed", f"the process had ended before it could begin ({error})")
        return found

    def _ended(self, found: Line, status: str, why: str) -> Line:
        return {**found, "status": status, "errors": [*found["errors"], f"{self.section.name}: {why}"]}

    def end(self) -> None:
        """Kill it and what it started; only then the next may use the card."""
        with suppress(ProcessLookupError):  # it had ended
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


def environment(rehearse: bool) -> dict[str, str]:
    """Without a network. The interpreter of Triton must be chosen before triton is imported."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"), str(ROOT / "bench"))))
    more = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if rehearse:
        more |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **more}


class PlannedClock:
    """Shows for a rehearsal the time that a card is expected to take: whether a call holds its sections."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def passed(self, line: Line) -> None:
        if line["status"] != "skipped":
            self.now += by_name(line["section"]).seconds
