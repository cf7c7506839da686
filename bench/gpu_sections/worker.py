"""The process of one section: imports its module, waits for the word to go, and reports in lines of JSON.

    python -m gpu_sections.worker MODULE SECTION        (driver.py starts it)

A section is a function of its name, `section(place, report)`. Whatever others print goes to stderr: lines on stdout
are the protocol. Each holds all that was found so far, so that what a killed section had measured is not lost.
"""

import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_sections.report import Place, Report, Skipped


def main() -> None:
    module_name, name = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print
    section: Callable[[Place, Report], None] = getattr(importlib.import_module(module_name), name)
    asked = json.loads(sys.stdin.readline())
    end = time.monotonic() + asked["limit"]
    shakespeare = Path(asked["shakespeare"]) if asked["shakespeare"] else None
    place = Place(asked["rehearse"], Path(asked["scratch"]), shakespeare, end)
    report = Report(out, asked["judge"])
    status, began = "failed", time.monotonic()
    try:
        with report.attempt(name):
            report.facts |= card_facts(place)
            report.send()
            section(place, report)
            status = "done"
    except Skipped as why:
        status = "skipped"
        report.errors.append(f"skipped: {why}")
    report.send(status=status, seconds=time.monotonic() - began)
    os._exit(0)  # nothing that a broken context would do at the end is waited for


def card_facts(place: Place) -> dict[str, Any]:
    """Raises RuntimeError where there is no card."""
    facts = {"card": None, "python": platform.python_version(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    if "torch" in sys.modules:  # not so in a section of the tests
        import torch

        facts |= {"card": "CPU" if place.rehearse else torch.cuda.get_device_name(), "torch": torch.__version__}
    return facts


if __name__ == "__main__":
    main()
