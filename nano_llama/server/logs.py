"""The log: one JSON object per line on stderr, with the id of the request it is about.

A line that cannot be written (a full disk, a pipe that nobody reads) is lost, and the requests go on: lines wait in a
bounded queue, and a thread of its own writes them. Prompts are not logged unless the operator asks for it.
Tests: tests/server/test_logs.py.
"""

import json
import logging
import queue
import re
import secrets
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

QUEUE_LENGTH = 10_000  # lines that may wait to be written
LOGGERS = ("nano_llama", "uvicorn", "asyncio")
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")  # what a client may call its request; anything else could forge lines

log = logging.getLogger("nano_llama.server")


def request_id(given: str | None) -> str:
    """The client's own id for its request (x-request-id), or a new one."""
    return given if given and GIVEN_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def event(name: str, level: int = logging.INFO, **fields: Any) -> None:
    """One line: what happened, and the facts of it."""
    log.log(level, name, extra={"fields": fields})


class JsonLines(logging.Formatter):
    """{"time", "level", "event", "request_id", ...fields, "traceback"}, without what is None."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "request_id": REQUEST_ID.get(),
            **getattr(record, "fields", {}),
            "traceback": self.formatException(record.exc_info) if record.exc_info else None,
        }
        return json.dumps({key: value for key, value in line.items() if value is not None}, default=str)


class LogWriter(logging.Handler):
    """Writes the lines of LOGGERS while it is open; quiet: warnings and errors only."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False):
        super().__init__(logging.WARNING if quiet else logging.INFO)
        self.setFormatter(JsonLines())
        self.stream = stream or sys.stderr
        self.lost = 0
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_LENGTH)
        self._thread = threading.Thread(target=self._write, name="nano-llama-log", daemon=True)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))  # formatted here, where the request's id is known
        except queue.Full:
            self.lost += 1

    def __enter__(self) -> "LogWriter":
        self._thread.start()
        for name in LOGGERS:
            logger = logging.getLogger(name)
            logger.addHandler(self)
            logger.propagate = False
            logger.setLevel(self.level if name == "nano_llama" else logging.WARNING)
        return self

    def __exit__(self, *exception: object) -> None:
        for name in LOGGERS:
            logger = logging.getLogger(name)
            logger.removeHandler(self)
            logger.propagate = True
            logger.setLevel(logging.NOTSET)
        try:
            self._lines.put(None, timeout=1.0)
        except queue.Full:
            return
        self._thread.join(timeout=1.0)  # a reader who does not read does not keep the server from ending

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self.stream.write(f"{line}\n")
                self.stream.flush()
            except (OSError, ValueError):  # a full disk, a closed pipe
                self.lost += 1
