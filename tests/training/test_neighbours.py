"""What other programs take is told once, and only where it is much; their cores are left to them."""

import pytest

from nano_llama.core.machine import CpuUse
from nano_llama.training import neighbours
from nano_llama.training.neighbours import Neighbours, free_threads


@pytest.mark.parametrize(("others", "told"), [(1.9, True), (0.3, False), (None, False)])
def test_a_busy_machine_is_told_once(monkeypatch, others, told):
    class Use(CpuUse):
        def by_others(self):
            return others

    now, heard = [100.0], []
    monkeypatch.setattr(neighbours, "CpuUse", Use)
    monkeypatch.setattr(neighbours.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(neighbours.time, "monotonic", lambda: now[0])
    watch = Neighbours(heard.append)
    watch.look()
    assert not heard, "it is too early to tell"
    for now[0] in (106.0, 120.0):
        watch.look()
    assert heard == (
        ["Other programs kept 1.9 of 2 cores busy: training is slower than it would be alone."] if told else []
    )


@pytest.mark.parametrize(
    ("threads", "cores", "others", "chosen"),
    [
        (2, 2, 0.3, 2), (2, 2, 0.9, 1), (2, 2, 1.9, 1), (2, 2, None, 2), (8, 8, 3.2, 5), (8, 8, 8.0, 4),
        (3, 3, 3.0, 2), (2, 64, 30.0, 2),
    ],
)  # fmt: skip
def test_threads_take_the_free_cores_but_at_least_half(monkeypatch, threads, cores, others, chosen):
    class Use(CpuUse):
        def by_others(self):
            return others

    slept, heard = [], []
    monkeypatch.setattr(neighbours, "CpuUse", Use)
    monkeypatch.setattr(neighbours.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(neighbours.time, "sleep", slept.append)
    assert free_threads(threads, heard.append) == chosen
    assert slept == [neighbours.GLANCE] and len(heard) == (chosen < threads)
    assert all(f"{others:.1f} of {cores} cores" in text and f"{chosen} of {threads} threads" in text for text in heard)


def test_one_thread_needs_no_look(monkeypatch):
    monkeypatch.setattr(neighbours, "CpuUse", None)
    assert free_threads(1, pytest.fail) == 1
