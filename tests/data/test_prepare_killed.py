"""Killed at any moment and started again, `prepare` ends with the bytes of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nano_llama.data.prepare import prepare

WORDS = "kill this process at any moment: it rises again from what it wrote, byte for byte the same "
PREPARE = """
import sys
from nano_llama.data.prepare import prepare
prepare(sys.argv[1], "bpe:400", sys.argv[2], workers=int(sys.argv[3]), shard_bytes=20_000)
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    for i in range(60):
        (folder / f"{i:02d}.txt").write_text(" ".join(rng.choices(WORDS.split(), k=rng.randrange(100, 8000))))
    return folder


def start(corpus: Path, out: Path, workers: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", PREPARE, str(corpus), str(out), str(workers)])


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments(corpus, tmp_path, tree, workers):
    psutil = pytest.importorskip("psutil")
    prepare(corpus, "bpe:400", tmp_path / "undisturbed", workers=1, shard_bytes=20_000)
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    rng = random.Random(workers)
    kills = 0
    while kills < 5 and not out.exists():
        process = start(corpus, out, workers)
        began = len(list(partial.glob("*.bin")))
        # After a few more shards than there were; early starts are killed before the first.
        wanted = began + rng.randrange(0, 12)
        while process.poll() is None and len(list(partial.glob("*.bin"))) < wanted:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive, "workers outlive a parent that was killed"
    assert kills >= 3
    assert start(corpus, out, workers).wait() == 0
    assert tree(out) == tree(tmp_path / "undisturbed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "undisturbed"]


CHANGES = ["replace", "rename", "unlink", "rmdir", "mkdir"]


def die_at(change: int, corpus: Path, out: Path) -> bool:
    """Prepare in a child process that ends like one killed, just before its n-th change to the folder. Did it die?"""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(real):
            def call(*arguments, **options):
                nonlocal count
                if count == change:
                    os._exit(9)
                count += 1
                return real(*arguments, **options)

            return call

        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name)))
        try:
            prepare(corpus, "bpe:300", out, workers=1, shard_bytes=40_000)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code == 9


def test_killed_before_every_change_to_the_disk(tmp_path, tree):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for i in range(4):
        (corpus / f"{i}.txt").write_text(WORDS * 200 + str(i))
    prepare(corpus, "bpe:300", tmp_path / "undisturbed", workers=1, shard_bytes=40_000)
    expected = tree(tmp_path / "undisturbed")
    change = 0
    while die_at(change, corpus, tmp_path / f"out{change}"):
        out = tmp_path / f"out{change}"
        prepare(corpus, "bpe:300", out, workers=1, shard_bytes=40_000)
        assert tree(out) == expected
        change += 1
    assert change > 10
    assert not list(tmp_path.glob("*.partial"))


def test_a_full_disk_is_an_error_and_keeps_finished_shards(corpus, tmp_path, tree):
    """No file may grow beyond what the first two shards need: a later one does not fit."""
    pytest.importorskip("resource")
    prepare(corpus, "bpe:300", tmp_path / "undisturbed", workers=1, shard_bytes=50_000)
    out = tmp_path / "out"
    sizes = [file.stat().st_size for file in sorted((tmp_path / "undisturbed").glob("train-*.bin"))]
    assert max(sizes) > max(sizes[:2])
    full = PREPARE_WITH_LITTLE_ROOM.format(limit=max(sizes[:2]))
    done = subprocess.run([sys.executable, "-c", full, str(corpus), str(out)], capture_output=True, text=True)
    assert done.stdout.startswith("EnvironmentFault Cannot write"), done.stdout + done.stderr
    assert "File too large" in done.stdout and "free space" in done.stdout
    assert (tmp_path / "out.partial" / "train-00001.bin").exists() and not out.exists()
    prepare(corpus, "bpe:300", out, workers=1, shard_bytes=50_000)
    assert tree(out) == tree(tmp_path / "undisturbed")


PREPARE_WITH_LITTLE_ROOM = """
import resource, sys
from nano_llama.data.prepare import prepare
from nano_llama.core.errors import NanoLlamaError
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    prepare(sys.argv[1], "bpe:300", sys.argv[2], workers=1, shard_bytes=50_000)
except NanoLlamaError as error:
    print(type(error).__name__, error)
"""


def test_a_partial_folder_of_another_plan_or_with_damage_is_not_trusted(corpus, tmp_path, tree):
    prepare(corpus, "bpe:400", tmp_path / "undisturbed", workers=1, shard_bytes=20_000)
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    process = start(corpus, out, 1)
    while len(list(partial.glob("*.bin"))) < 4:
        time.sleep(0.001)
    process.kill()
    process.wait()
    damaged = bytearray((partial / "train-00001.bin").read_bytes())
    damaged[1000] ^= 4
    (partial / "train-00001.bin").write_bytes(damaged)
    (partial / "train-00002.bin").write_bytes(b"")
    prepare(corpus, "bpe:400", out, workers=1, shard_bytes=20_000)
    assert tree(out) == tree(tmp_path / "undisturbed")

    out.rename(partial)  # as if all of it had been left by a run over another text
    (partial / "plan.json").write_text("{}")
    (partial / "dataset.json").unlink()
    (partial / "train-00000.bin").write_bytes((partial / "train-00001.bin").read_bytes())
    prepare(corpus, "bpe:400", out, workers=1, shard_bytes=20_000)
    assert tree(out) == tree(tmp_path / "undisturbed")
