"""`nano-llama doctor`: what this machine can do, what is installed, and what to install next.

It changes nothing and opens no connection.
Tests: tests/cli/test_doctor.py.
"""

import platform
import re
import time
from importlib import metadata
from typing import Any

from nano_llama import __version__
from nano_llama.cli.common import Output, Screen, facts, table
from nano_llama.core import env, machine
from nano_llama.core.errors import DISTRIBUTION, install_command
from nano_llama.core.units import size_text


def run(*, output: Output | None = None) -> int:
    """Report on this machine, with advice: cores, memory, instructions, torch, compiler, GPU, extras, disk.

    Nothing is changed and nothing is downloaded. Send the output of  nano-llama doctor --json  with a bug report.
    """
    screen = Screen(output)
    screen.say("Looking (a few seconds: torch is imported and two small matrix products are timed) ...", style="dim")
    hardware, software, torch, extras = probe_hardware(), probe_software(), probe_torch(), probe_extras()
    advice = advise(hardware, torch, extras)
    report = {"hardware": hardware, "software": software, "torch": torch, "extras": extras, "advice": advice}
    screen.result(
        report,
        facts(_readable(hardware), "Machine"),
        "",
        facts(_readable(software), "Software"),
        "",
        facts(_readable(torch), "PyTorch"),
        "",
        table(("extra", "brings", "missing"), [_extra_row(*item) for item in extras.items()], "Extras"),
        "",
        "Advice",
        *(f"  - {line}" for line in advice),
    )
    return 0


def probe_hardware() -> dict[str, Any]:
    return {
        "cpu": machine.cpu_name(),
        "architecture": platform.machine(),
        "usable_cores": machine.usable_cores(),
        "physical_cores": machine.physical_cores(),
        "instructions": machine.instructions(),
        "memory_bytes": machine.memory_bytes(),
        "free_memory_bytes": machine.available_bytes(),
        "gpus": machine.gpus(),
    }


def probe_software() -> dict[str, Any]:
    cache = env.cache_dir()
    return {
        "nano_llama": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "numpy": _version("numpy"),
        "blas": machine.numpy_blas(),
        "compiler": machine.compiler(),
        "python_headers": machine.has_python_headers(),
        "cache": str(cache),
        "cache_disk_free_bytes": machine.free_disk(cache),
        "offline": env.offline(),
    }


def probe_torch() -> dict[str, Any]:
    """Torch's build, devices and threads, and how its float32 and bfloat16 products compare here."""
    try:
        import torch
    except ImportError as error:
        return {"installed": False, "reason": str(error)}
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    fp32, bf16 = (_gemm_gflops(torch, dtype) for dtype in (torch.float32, torch.bfloat16))
    return {
        "installed": True,
        "version": torch.__version__,
        "cuda_build": torch.version.cuda,
        "devices": devices,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_fp32_gflops": fp32,
        "cpu_bf16_gflops": bf16,
        "cpu_bf16_fast": bf16 > 1.2 * fp32,
    }


def _gemm_gflops(torch: Any, dtype: Any, size: int = 512) -> float:
    """GFLOP/s of a (512,512) x (512,512) product, 2 size^3 operations: the best of a few."""
    a = torch.ones(size, size, dtype=dtype)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < 0.3:
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return round(2 * size**3 / best / 1e9, 1)


def probe_extras() -> dict[str, dict[str, Any]]:
    """extra -> its packages: those that are installed, with their version, and those that are missing."""
    extras: dict[str, dict[str, Any]] = {}
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return extras
    for requirement in distribution.requires or ():
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)["']""", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra is None or name is None or name[0] == DISTRIBUTION:
            continue
        entry = extras.setdefault(extra[1], {"installed": {}, "missing": []})
        version = _version(name[0])
        if version is None:
            entry["missing"].append(name[0])
        else:
            entry["installed"][name[0]] = version
    return extras


def advise(hardware: dict[str, Any], torch: dict[str, Any], extras: dict[str, dict[str, Any]]) -> list[str]:
    """The next steps, most useful first."""
    lines = []
    if not torch["installed"]:
        lines.append(f"Training in PyTorch and most models need torch:  {install_line('train')}")
        lines.append("Without it Volume 1 trains in NumPy:  nano-llama quickstart --engine numpy")
    elif hardware["gpus"] and torch["devices"] == ["cpu"]:
        lines.append(
            f"There is a GPU ({hardware['gpus'][0]}) that this build of torch ({torch['version']}) cannot use: "
            "install the build for it (pytorch.org, Get Started)."
        )
    if torch["installed"] and torch["devices"] == ["cpu"] and not torch["cpu_bf16_fast"]:
        lines.append("bfloat16 is no faster than float32 on this CPU: train in float32 (the default here).")
    if (free := hardware["free_memory_bytes"]) is not None and free < 2 * 2**30:
        lines.append(f"Only {size_text(free)} of memory is free: choose small presets and batch sizes.")
    for name in ("hub", "verify"):
        if missing := extras.get(name, {}).get("missing"):
            what = {"hub": "--model org/name", "verify": "nano-llama verify"}[name]
            lines.append(f"{what} needs {', '.join(missing)}:  {install_line(name)}")
    cores = hardware["usable_cores"]
    lines.append(f"Ready. On {cores} core{'s' if cores != 1 else ''}, start with  nano-llama quickstart")
    return lines


def install_line(extra: str) -> str:
    """The line that installs an extra."""
    return install_command(extra)


def _extra_row(name: str, entry: dict[str, Any]) -> tuple[str, str, str]:
    have = ", ".join(f"{package} {version}" for package, version in entry["installed"].items())
    missing = f"{', '.join(entry['missing'])}   {install_line(name)}" if entry["missing"] else "nothing"
    return name, have, missing


def _readable(probed: dict[str, Any]) -> dict[str, Any]:
    """For people: sizes in GiB, lists as words."""
    rows: dict[str, Any] = {}
    for key, value in probed.items():
        if key.endswith("_bytes"):
            key, value = key.removesuffix("_bytes"), None if value is None else size_text(value)
        elif isinstance(value, list):
            value = ", ".join(value) or "none"
        rows[key.replace("_", " ")] = value if value is not None else "unknown" if key != "cuda_build" else "none"
    return rows


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
