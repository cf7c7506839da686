"""Reading a trace that trace.py wrote, checked event by event: a file may come from anywhere.

Tests: tests/vol3/test_trace_files.py.
"""

import json
import math
from pathlib import Path
from typing import Any

from nano_llama.core.errors import FormatError, UserError

MAX_BYTES = 256 * 1024 * 1024
NUMBER = (int, float)
# The fields of each event, and the type of each; others are left as they are.
FIELDS: dict[str, dict[str, Any]] = {
    "began": {"block_size": int, "num_blocks": int, "max_num_seqs": int, "max_num_batched_tokens": int},
    "arrived": {"t": NUMBER, "sequence": int, "prompt_tokens": int, "max_length": int},
    "step": {"t": NUMBER, "step": int, "rows": list, "prefix_hits": dict, "preempted": list, "blocks": dict,
             "running": int, "waiting": int},
    "ended": {"t": NUMBER, "sequence": int, "tokens": int, "reason": str},
}  # fmt: skip
ROW = {"sequence": int, "position": int, "count": int, "blocks": list, "chooses": bool}


def read_trace(path: str | Path) -> list[dict[str, Any]]:
    """All events, "began" first. Raises UserError where there is no such file, FormatError for what is not a trace."""
    try:
        size = Path(path).stat().st_size
        if size > MAX_BYTES:
            raise FormatError(f"The trace {path} has {size:,} bytes; at most {MAX_BYTES:,} are read.")
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"The trace {path} cannot be read: {error.strerror}.") from None
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(checked(json.loads(line)))
        except (ValueError, RecursionError) as error:
            if number == len(lines) > 1:
                break  # the run was cut off amid its last line
            raise FormatError(f"The trace {path}, line {number}: {str(error)[:200]}.") from None
    if not events or events[0]["event"] != "began":
        raise FormatError(f'The trace {path} does not begin with the event "began".')
    return events


def checked(event: Any) -> dict[str, Any]:
    """The event. Raises ValueError for one that a reader could not use."""
    kind = event.get("event") if isinstance(event, dict) else None
    if kind not in FIELDS:
        raise ValueError(f"{kind!r:.40} is not an event of a trace")
    check_fields(event, FIELDS[kind], kind)
    for row in event["rows"] if kind == "step" else ():
        check_fields(row, ROW, "row")
    return event


def check_fields(found: Any, fields: dict[str, Any], name: str) -> None:
    for field, kind in fields.items():
        value = found.get(field) if isinstance(found, dict) else None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name} has {field}={value!r:.40}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} has {field}={value!r}")
