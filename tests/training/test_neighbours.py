"""What other programs take is told once, and only where it is much."""

import pytest

from nano_llama.training import neighbours
from nano_llama.training.neighbours import Neighbours


@pytest.mark.parametrize(("others", "told"), [(1.9, True), (0.3, False), (None, False)])
def test_a_busy_machine_is_told_once(monkeypatch, others, told):
    class Use:
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
        ["Other programs keep 1.9 of 2 cores busy: training is slower than it would be alone."] if told else []
    )
