"""How much memory this process took at most, and how much it may still take, as its system tells.

Not here: a GPU's memory (its engine knows). Tests: tests/core/test_memory.py.
"""

import re
import sys
from contextlib import suppress
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def peak_resident_bytes() -> int:
    """The largest resident set of this process so far, in bytes; 0 where the system does not tell."""
    try:  # Linux; its getrusage would count what the parent held when it started this program
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    if found:
        return 1024 * int(found.group(1))
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, the others KiB


def available_bytes(system: Path = Path("/")) -> int | None:
    """What may still be allocated: free memory, within a container's limit and this process's own (RLIMIT_AS).

    None where the system does not tell (not Linux). `system`: where proc and sys are found.
    """
    limits = [_meminfo(system), _container(system), _address_space(system)]
    known = [limit for limit in limits if limit is not None]
    return max(min(known), 0) if known else None


def _meminfo(system: Path) -> int | None:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _read(system / "proc/meminfo"), re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _container(system: Path) -> int | None:
    """cgroup v2: the limit less what is used, of which the file cache can be taken back."""
    limit, used = (_read(system / f"sys/fs/cgroup/memory.{part}").strip() for part in ("max", "current"))
    if not limit.isdigit() or not used.isdigit():
        return None
    cache = re.search(r"^inactive_file (\d+)", _read(system / "sys/fs/cgroup/memory.stat"), re.MULTILINE)
    return int(limit) - int(used) + (int(cache[1]) if cache else 0)


def _address_space(system: Path) -> int | None:
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = re.search(r"^VmSize:\s+(\d+) kB", _read(system / "proc/self/status"), re.MULTILINE)
    return limit - 1024 * int(used[1]) if limit != resource.RLIM_INFINITY and used else None


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""
