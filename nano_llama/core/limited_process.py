"""A process for work that is not trusted: it may hang, crash or eat memory, and costs an error and nothing else.

The script that runs in it speaks lines of JSON, one answer to each request. Time is bounded by this side, which kills
the process; memory by the operating system, where it can, once the script calls `limit_resources`.

Used for chat templates (tokenizer/template_worker.py) and constraints (vol3_engine/constraint_worker.py).
Tests: tests/tokenizer/test_template_limits.py, tests/vol3/test_constraint_limits.py.
"""

import json
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

from nano_llama.core.errors import EnvironmentFault

START_SECONDS = 30.0  # to start Python and import a package, on a busy machine


class ProcessEnded(Exception):
    """No answer: it was killed after `seconds` (late), or it ended by itself with this status."""

    def __init__(self, late: bool, seconds: float, status: int | None):
        super().__init__(f"late={late} after {seconds} s, status {status}")
        self.late, self.seconds, self.status = late, seconds, status


class LimitedProcess:
    """One running script. Whatever goes wrong, it is killed; ask `usable` before the next request.

    The script's first line is {"path": sys.path, **setup}; its answer to that says that it is ready.
    what: who needs it, for the errors. Raises EnvironmentFault if it cannot start.
    """

    def __init__(self, script: Path, setup: dict[str, Any], what: str):
        try:
            # -I -S: nothing from the user's site, environment or folder; the paths of this process are handed over.
            self.popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                start_new_session=True,
            )
        except OSError as error:
            raise EnvironmentFault(f"{what} needs a process of its own, which cannot start: {error}.") from error
        self._owner = os.getpid()
        weakref.finalize(self, _end, self.popen, self._owner)
        try:
            self.exchange({"path": sys.path, **setup}, START_SECONDS)
        except ProcessEnded as ended:
            raise EnvironmentFault(
                f"{what} needs a process of its own, which did not start within {START_SECONDS:.0f} s."
                if ended.late
                else f"{what} needs a process of its own, which ended at its start (status {ended.status})."
            ) from None

    def usable(self) -> bool:
        """Alive, and ours: after a fork the pipes belong to the parent."""
        return self._owner == os.getpid() and self.popen.poll() is None

    def exchange(self, request: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
        """Send a line (None: nothing), wait for one. Raises ProcessEnded where none comes within so many seconds."""
        assert self.popen.stdin is not None and self.popen.stdout is not None, "the process has pipes"
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.popen.kill()

        timer = threading.Timer(seconds, give_up)  # killing it ends the reading
        timer.daemon = True
        timer.start()
        try:
            if request is not None:
                self.popen.stdin.write(json.dumps(request) + "\n")
                self.popen.stdin.flush()
            return json.loads(self.popen.stdout.readline())
        except (OSError, ValueError):  # killed by the timer, by its limits, or crashed
            _end(self.popen, self._owner)
            raise ProcessEnded(late.is_set(), seconds, self.popen.returncode) from None
        except BaseException:  # Ctrl-C: the pending answer would be taken for the next one
            _end(self.popen, self._owner)
            raise
        finally:
            timer.cancel()


def _end(process: subprocess.Popen, owner: int) -> None:
    if owner == os.getpid():
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was still to be written has no reader
                    continue


def limit_resources(memory: int, seconds: float) -> None:
    """For the script: bound the address space, and the processor time from now on (for when the parent has died).

    Not on Windows; on macOS in name only.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    for what, soft in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, int(used + seconds) + 2)):
        hard = resource.getrlimit(what)[1]
        try:
            resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
        except (ValueError, OSError):  # macOS refuses some
            continue
