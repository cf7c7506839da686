"""How many threads this process can keep busy: physical cores that it may use, within a container's quota.

Two hardware threads of a core share its arithmetic, so a second one on the same core gains kernels nothing.
Not here: the threads (kernels/thread_pool.py). Tests: tests/core/test_cores.py.
"""

import os
from contextlib import suppress
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cpus: Path = CPUS, cgroup: Path = CGROUP) -> int:
    """At least 1."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpus, cpu) for cpu in allowed}
    quota = _quota(cgroup)
    return max(1, len(cores) if quota is None else min(len(cores), int(quota)))


def _siblings(cpus: Path, cpu: int) -> str:
    """The logical processors of a core, as Linux lists them; elsewhere each counts as a core."""
    with suppress(OSError):
        return (cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    return str(cpu)


def _quota(cgroup: Path) -> float | None:
    """Processors' worth of time that a container may use; None: no limit. Both versions of Linux's control groups."""
    with suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
        return int(quota) / int((cgroup / "cpu" / "cpu.cfs_period_us").read_text()) if int(quota) > 0 else None
    return None
