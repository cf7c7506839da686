"""The machine that a result was measured on, written beside every result: compare it before comparing results."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nano_llama.core import machine

PACKAGES = ("numpy", "torch", "tokenizers", "numba")


def fingerprint() -> dict[str, Any]:
    """Processor, cores, the instructions that matter, versions, the current load, and the date."""
    return {
        "cpu": machine.cpu_name(),
        "cores": machine.usable_cores(),
        "instructions": machine.instructions(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": sys.version.split()[0],
        **{package: _version(package) for package in PACKAGES},
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
