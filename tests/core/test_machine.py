"""What the machine is and how much of it may be used: read from a made-up system, and here."""

import os
import subprocess
import sys
import time

import pytest

from nano_llama.core import machine

CPUINFO = """\
processor\t: 0
model name\t: Test CPU @ 3 GHz
flags\t\t: fpu avx2 fma f16c avx512f avx512_vnni

processor\t: 1
flags\t\t: fpu avx2 fma f16c avx512f avx512_vnni
"""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc and /sys")
pytestmark = linux


@pytest.fixture
def system(tmp_path):
    """A folder to stand in for /, and `put(name, text)` for the files in it."""

    class System:
        root = tmp_path

        def put(self, name, text):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return System()


@pytest.fixture
def four_cores(system, monkeypatch):
    """Eight logical processors on four cores, all allowed."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for cpu in range(8):
        topology = f"sys/devices/system/cpu/cpu{cpu}/topology"
        system.put(f"{topology}/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}\n")
    return system


def test_hardware_threads_of_a_core_count_once(four_cores):
    assert machine.usable_cores(four_cores.root) == machine.physical_cores(four_cores.root) == 4


def test_affinity_counts(four_cores, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 2})
    assert machine.usable_cores(four_cores.root) == 2
    assert machine.physical_cores(four_cores.root) == 4
    assert machine.allowed_cpus() == {1, 5, 2}


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1)])
def test_a_containers_cpu_quota_counts(four_cores, quota, expected):
    four_cores.put("sys/fs/cgroup/cpu.max", quota + "\n")
    assert machine.usable_cores(four_cores.root) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 4), ("300000", 3)])
def test_the_older_control_groups_count(four_cores, quota, expected):
    four_cores.put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota + "\n")
    four_cores.put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert machine.usable_cores(four_cores.root) == expected


def test_where_the_topology_is_unknown_each_processor_counts(system, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    assert machine.usable_cores(system.root) == 3
    assert machine.physical_cores(system.root) is None


def test_processor(system):
    system.put("proc/cpuinfo", CPUINFO)
    assert machine.cpu_name(system.root) == "Test CPU @ 3 GHz"
    assert machine.instructions(system.root) == ["AVX2", "FMA", "F16C", "AVX-512", "AVX-512 VNNI"]


def test_arm(system):
    system.put("proc/cpuinfo", "Features\t: fp asimd asimddp i8mm bf16 sve\n")
    assert machine.instructions(system.root) == ["NEON", "NEON dot product", "NEON int8 matrix", "NEON bf16", "SVE"]


def test_a_containers_memory_limit_counts(system):
    assert machine.memory_bytes(system.root) is None and machine.available_bytes(system.root) is None
    system.put("proc/meminfo", "MemTotal: 8000 kB\nMemAvailable:   4000 kB\n")
    assert (machine.memory_bytes(system.root), machine.available_bytes(system.root)) == (8000 * 1024, 4000 * 1024)
    system.put("sys/fs/cgroup/memory.max", "3000000\n")
    system.put("sys/fs/cgroup/memory.current", "2500000\n")
    system.put("sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 200000\n")
    assert (machine.memory_bytes(system.root), machine.available_bytes(system.root)) == (3_000_000, 700_000)
    system.put("sys/fs/cgroup/memory.max", "max\n")
    assert (machine.memory_bytes(system.root), machine.available_bytes(system.root)) == (8000 * 1024, 4000 * 1024)


def test_an_address_space_limit_counts():
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (2**46, before[1]))
        unlimited = machine.available_bytes()
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))  # noqa: PTH123, SIM115
        used = 1024 * int(status["VmSize"].split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, before[1]))
        assert machine.available_bytes() <= 50_000_000 < unlimited
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


PEAK = """
from nano_llama.core.machine import peak_resident_bytes
before = peak_resident_bytes()
block = bytearray(b"x" * 300_000_000)
del block
print(before, peak_resident_bytes())
"""


def test_peak_memory_grows_by_what_is_touched_and_does_not_shrink():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 0 < before < 200_000_000 < 300_000_000 <= after < 900_000_000


def test_free_disk_where_a_folder_would_be_made(tmp_path):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    assert 0 < machine.free_disk(tmp_path / "not" / "yet" / "there") <= usage.total


def test_probes_of_programs(monkeypatch):
    """A compiler that is there, with its version; a driver that is not."""
    monkeypatch.setattr(machine.shutil, "which", lambda name: sys.executable if name == "clang++" else None)
    assert machine.compiler() == f"clang++: Python {sys.version.split()[0]}"
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert machine.compiler() is None
    monkeypatch.setattr(
        machine, "_output", lambda *command: "Card, 80 GiB, 5.1\n\n" if command[0] == "nvidia-smi" else None
    )
    assert machine.gpus()[0] == "Card, 80 GiB, 5.1"


def test_numpy_blas_names_its_library_and_threads():
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        found = machine.numpy_blas()
    assert found is None or ", 1 threads" in found


def test_a_missing_or_failing_program_is_none():
    assert machine._output("no-such-program-here") is None
    assert machine._output(sys.executable, "-c", "raise SystemExit(3)") is None
    assert machine._output(sys.executable, "-c", "print('ok')") == "ok"


def test_what_others_use_is_all_work_less_our_own(tmp_path, monkeypatch):
    """8 s of wall time on two processors: 10 s of work, of which 3 are ours; waiting for a disk is none."""
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    now = iter([50.0, 58.0])
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(now))
    own = iter([(1.0, 0.5, 0.0, 0.0, 0.0), (3.0, 1.0, 0.5, 0.0, 0.0)])
    monkeypatch.setattr(os, "times", lambda: next(own))
    (tmp_path / "proc").mkdir()
    stat = tmp_path / "proc/stat"
    stat.write_text("cpu  100 10 50 9000 70 3 2 5 0 0\ncpu0 1 2 3\n")
    use = machine.CpuUse(tmp_path)
    stat.write_text("cpu  900 60 150 9400 270 13 12 35 0 0\ncpu0 1 2 3\n")
    assert use.by_others() == pytest.approx((10.0 - 3.0) / 8.0)
    assert machine.CpuUse(tmp_path / "nothing").by_others() is None


@pytest.mark.parametrize(("others", "said"), [(1.9, True), (0.7, False), (None, False)])
def test_a_noisy_machine_is_worth_a_remark(monkeypatch, others, said):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    use = machine.CpuUse()
    monkeypatch.setattr(use, "by_others", lambda: others)
    assert use.sentence("so.") == ("Other programs kept 1.9 of 2 cores busy: so." if said else None)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_age_of_a_process(tmp_path):
    begin = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        time.sleep(0.2)
        age = machine.process_age(child.pid)
        assert age is not None and 0.15 <= age <= time.monotonic() - begin + 0.02
        child.communicate(b"\n")
    assert machine.process_age(child.pid) is None, "it has ended"
    assert machine.process_age(1, tmp_path) is None
