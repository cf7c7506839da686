"""Probes of the machine: they answer or say None, and never raise; what they read is fed to them here."""

import sys
from pathlib import Path

import pytest

from nano_llama.cli import machine

CPUINFO = """\
processor\t: 0
model name\t: Test CPU @ 3 GHz
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 fma f16c avx512f avx512_vnni

processor\t: 1
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 fma f16c avx512f avx512_vnni
"""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def files(monkeypatch):
    def put(**texts):
        monkeypatch.setattr(machine, "_read", lambda path: texts.get(Path(path).name.replace(".", "_"), ""))

    return put


@linux
def test_cpuinfo(files):
    files(cpuinfo=CPUINFO)
    assert machine.cpu_name() == "Test CPU @ 3 GHz"
    assert machine.physical_cores() == 1
    assert machine.instructions() == ["AVX2", "FMA", "F16C", "AVX-512", "AVX-512 VNNI"]


@linux
def test_arm(files):
    files(cpuinfo="Features\t: fp asimd asimddp i8mm bf16 sve\n")
    assert machine.instructions() == ["NEON", "NEON dot product", "NEON int8 matrix", "NEON bf16", "SVE"]
    assert machine.physical_cores() is None


@linux
def test_a_container_s_limits_count(files):
    meminfo = "MemTotal:  16000000 kB\nMemAvailable:  8000000 kB\n"
    files(meminfo=meminfo, cpu_max="100000 100000\n", memory_max="1073741824\n", memory_current="73741824\n")
    assert machine.memory_bytes() == (2**30, 10**9)
    files(meminfo=meminfo, cpu_max="max 100000\n", memory_max="max\n", memory_current="5\n")
    assert machine.memory_bytes() == (16_000_000 * 1024, 8_000_000 * 1024)


@linux
def test_nothing_to_read_is_unknown(files):
    files()
    assert machine.instructions() == []
    assert machine.physical_cores() is None
    assert machine.memory_bytes() == (None, None)


def test_here(tmp_path):
    assert machine.numpy_blas() is None or machine.numpy_blas()
    assert machine.free_disk(tmp_path / "not" / "yet" / "there") > 0
    assert isinstance(machine.gpus(), list)
    machine.compiler(), machine.has_python_headers()


def test_a_missing_or_failing_program_is_none():
    assert machine._output("no-such-program-here") is None
    assert machine._output(sys.executable, "-c", "raise SystemExit(3)") is None
    assert machine._output(sys.executable, "-c", "print('ok')") == "ok"
