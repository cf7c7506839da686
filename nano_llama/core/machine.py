"""What this machine is and how much of it this process may use: cores, memory, instructions, compiler, GPU.

Plain probes that never raise; None means unknown. `system` is the folder in which proc and sys are found.

Not here: advice and printing (cli/doctor.py), which instructions the kernels choose (vol3_engine/cpu/isa.py).
Tests: tests/core/test_machine.py.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ROOT = Path("/")
# What kernels care about, as Linux's /proc/cpuinfo spells it -> as people write it, weakest first.
INSTRUCTIONS = {
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_bf16": "AMX BF16",
    "amx_int8": "AMX INT8",
    "asimd": "NEON",
    "asimddp": "NEON dot product",
    "i8mm": "NEON int8 matrix",
    "bf16": "NEON bf16",
    "sve": "SVE",
}
# The same on a Mac: sysctl's names.
_SYSCTL = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.neon": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
}

# -- processes --------------------------------------------------------------------------------------------------------


def process_age(pid: int, system: Path = ROOT) -> float | None:
    """Seconds since a process began: field 22 of proc(5)'s stat, in clock ticks since the machine did."""
    try:
        fields = (system / f"proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


# -- cores ------------------------------------------------------------------------------------------------------------


def allowed_cpus() -> set[int]:
    """The logical processors that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def usable_cores(system: Path = ROOT) -> int:
    """How many threads this process can keep busy: physical cores it may use, within a container's quota; at least 1.

    The hardware threads of a core share its arithmetic, so a second one on the same core gains kernels nothing.
    """
    cores = {_siblings(system, cpu) or str(cpu) for cpu in allowed_cpus()}
    quota = _cpu_quota(system / "sys/fs/cgroup")
    return max(1, len(cores) if quota is None else min(len(cores), int(quota)))


def physical_cores(system: Path = ROOT) -> int | None:
    """The machine's cores, without counting hyper-threads twice."""
    if sys.platform == "darwin":
        return _integer(_output("sysctl", "-n", "hw.physicalcpu"))
    cores = {_siblings(system, cpu) for cpu in range(os.cpu_count() or 1)}
    return len(cores - {""}) or None


def _siblings(system: Path, cpu: int) -> str:
    """The logical processors of a core, as Linux lists them; "" elsewhere."""
    return _read(system / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").strip()


def _cpu_quota(cgroup: Path) -> float | None:
    """Processors' worth of time that a container may use; None: no limit. Both versions of Linux's control groups."""
    with suppress(ValueError):
        quota, period = _read(cgroup / "cpu.max").split()
        return None if quota == "max" else int(quota) / int(period)
    with suppress(ValueError):
        quota = _read(cgroup / "cpu/cpu.cfs_quota_us")
        return int(quota) / int(_read(cgroup / "cpu/cpu.cfs_period_us")) if int(quota) > 0 else None
    return None


SHORTEST_LOOK = 0.4  # seconds: the system counts the time of processors in hundredths


BUSY = 0.4  # of the machine, taken by others: worth a word


class CpuUse:
    """How many cores' worth of work other programs have done since this was made."""

    def __init__(self, system: Path = ROOT):
        self._stat = system / "proc/stat"
        self._before = self._seconds()

    def by_others(self) -> float | None:
        """Cores, 0 and more; None: the system does not say, or too little time has passed to tell."""
        now = self._seconds()
        if now is None or self._before is None or now[0] - self._before[0] < SHORTEST_LOOK:
            return None
        wall, busy, own = (after - before for after, before in zip(now, self._before, strict=True))
        return max(busy - own, 0.0) / wall

    def sentence(self, then: str) -> str | None:
        """A sentence where other programs have taken much of the machine since this was made. then: what follows."""
        cores, others = os.cpu_count() or 1, self.by_others()
        if others is None or others <= BUSY * cores:
            return None
        return f"Other programs kept {others:.1f} of {cores} cores busy: {then}"

    def _seconds(self) -> tuple[float, float, float] | None:
        """Wall time, busy time of all processors, and of this process and the children that it waited for."""
        found = re.search(r"^cpu +(.+)$", _read(self._stat), re.MULTILINE)
        if not found or not hasattr(os, "sysconf"):
            return None
        ticks = [int(number) for number in found[1].split()]  # user, nice, system, idle, iowait, irq, softirq, steal
        busy = (sum(ticks[:8]) - sum(ticks[3:5])) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy, sum(os.times()[:4])


# -- memory -----------------------------------------------------------------------------------------------------------


def peak_resident_bytes() -> int:
    """The largest resident set of this process so far, in bytes; 0 where the system does not say."""
    # Linux, where getrusage would count what the parent held when it started this program
    found = re.search(r"VmHWM:\s*(\d+) kB", _read(Path("/proc/self/status")))
    if found:
        return 1024 * int(found[1])
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, the others KiB


def memory_bytes(system: Path = ROOT) -> int | None:
    """The machine's memory, or a container's limit where that is less."""
    if sys.platform == "darwin":
        return _integer(_output("sysctl", "-n", "hw.memsize"))
    limits = [_meminfo(system, "MemTotal"), _integer(_read(system / "sys/fs/cgroup/memory.max"))]
    return min((limit for limit in limits if limit is not None), default=None)


def available_bytes(system: Path = ROOT) -> int | None:
    """What may still be allocated: free memory, within a container's limit and this process's own (RLIMIT_AS).

    None where the system does not say (not Linux).
    """
    limits = [_meminfo(system, "MemAvailable"), _left_in_container(system), _address_space(system)]
    known = [limit for limit in limits if limit is not None]
    return max(min(known), 0) if known else None


def _meminfo(system: Path, key: str) -> int | None:
    found = re.search(rf"^{key}:\s+(\d+) kB", _read(system / "proc/meminfo"), re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _left_in_container(system: Path) -> int | None:
    """cgroup v2: the limit less what is used, not counting the file cache, which can be reclaimed."""
    limit, used = (_integer(_read(system / f"sys/fs/cgroup/memory.{part}")) for part in ("max", "current"))
    if limit is None or used is None:
        return None
    cache = re.search(r"^inactive_file (\d+)", _read(system / "sys/fs/cgroup/memory.stat"), re.MULTILINE)
    return limit - used + (int(cache[1]) if cache else 0)


def _address_space(system: Path) -> int | None:
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = re.search(r"^VmSize:\s+(\d+) kB", _read(system / "proc/self/status"), re.MULTILINE)
    return limit - 1024 * int(used[1]) if limit != resource.RLIM_INFINITY and used else None


# -- processor --------------------------------------------------------------------------------------------------------


def cpu_name(system: Path = ROOT) -> str | None:
    """The processor's model name."""
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    found = re.search(r"^model name\s*:\s*(.+)$", _read(system / "proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def instructions(system: Path = ROOT) -> list[str]:
    """The vector instructions that matter to us, as people write them."""
    if sys.platform == "darwin":
        flags = {flag for key, flag in _SYSCTL.items() if _output("sysctl", "-n", key) == "1"}
    else:
        lines = re.findall(r"^(?:flags|Features)\s*:\s*(.+)$", _read(system / "proc/cpuinfo"), re.MULTILINE)
        flags = set(lines[0].split()) if lines else set()
    return [name for flag, name in INSTRUCTIONS.items() if flag in flags]


# -- the rest ---------------------------------------------------------------------------------------------------------


def compiler() -> str | None:
    """The C++ compiler that torch.compile would find, with its version."""
    for name in ("g++", "clang++", "c++", "cl"):
        if path := shutil.which(name):
            first = (_output(path, "--version") or name).splitlines()[0]
            return first if name in first else f"{name}: {first}"
    return None


def has_python_headers() -> bool:
    """True where Python.h is installed, without which compiled code cannot be loaded back."""
    return (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()


def gpus() -> list[str]:
    """The GPUs that their drivers report, torch or no torch."""
    listed = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    found = [line.strip() for line in (listed or "").splitlines() if line.strip()]
    if not found and Path("/dev/kfd").exists():
        found.append("an AMD GPU (/dev/kfd)")
    if sys.platform == "darwin" and platform.machine() == "arm64":
        found.append("Apple GPU (Metal)")
    return found


def numpy_blas() -> str | None:
    """Which library multiplies NumPy's matrices, its version and how many threads it takes."""
    import numpy as np  # loads the library that is asked about
    from threadpoolctl import threadpool_info

    assert np.__version__
    for pool in threadpool_info():
        if pool.get("user_api") == "blas":
            kernel = f", kernels for {pool['architecture']}" if pool.get("architecture") else ""
            return f"{pool['internal_api']} {pool.get('version') or ''}, {pool['num_threads']} threads{kernel}"
    return "unknown (Accelerate, perhaps)" if sys.platform == "darwin" else None


def free_disk(path: Path) -> int | None:
    """Free bytes where `path` is, or would be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    with suppress(OSError):
        return shutil.disk_usage(path).free
    return None


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _integer(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isdigit() else None


def _output(*command: str) -> str | None:
    """What a small program prints, or None where it is missing, fails or hangs."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, errors="replace", check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return None
