"""What this machine is: cores, memory, instructions, compiler, GPU. Plain probes that never raise; None: unknown.

Not here: how much of it this process may use (core/cores.py, core/memory.py), advice and printing (doctor.py).
Tests: tests/cli/test_machine.py.
"""

import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

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


def cpu_name() -> str | None:
    """The processor's model name."""
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def physical_cores() -> int | None:
    """Cores without counting hyper-threads twice."""
    if sys.platform == "darwin":
        return _integer(_output("sysctl", "-n", "hw.physicalcpu"))
    pairs = set()
    for block in _read("/proc/cpuinfo").split("\n\n"):
        ids = dict(re.findall(r"^(physical id|core id)\s*:\s*(\d+)$", block, re.MULTILINE))
        if len(ids) == 2:
            pairs.add((ids["physical id"], ids["core id"]))
    return len(pairs) or None


def instructions() -> list[str]:
    """The vector instructions that matter to us, as people write them."""
    if sys.platform == "darwin":
        flags = {flag for key, flag in _SYSCTL.items() if _output("sysctl", "-n", key) == "1"}
    else:
        lines = re.findall(r"^(?:flags|Features)\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
        flags = set(lines[0].split()) if lines else set()
    return [name for flag, name in INSTRUCTIONS.items() if flag in flags]


def memory_bytes() -> tuple[int | None, int | None]:
    """(all, free for use now) in bytes; a container's limit counts."""
    if sys.platform == "darwin":
        return _integer(_output("sysctl", "-n", "hw.memsize")), None
    kib = {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)}
    total, free = (kib[key] * 1024 if key in kib else None for key in ("MemTotal", "MemAvailable"))
    limit, used = (_integer(_read(f"/sys/fs/cgroup/memory.{part}")) for part in ("max", "current"))
    if limit is not None and total is not None and limit < total:
        total = limit
        free = min(free or limit, max(0, limit - (used or 0)))
    return total, free


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


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace")
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
