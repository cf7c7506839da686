"""One model in every program: they agree on the model that ships, and a program that differs is caught."""

from contextlib import contextmanager

import numpy as np
import pytest

from nano_llama.core.errors import EnvironmentFault
from nano_llama.verify import volumes
from nano_llama.verify.volumes import compare, verify_volumes

TEXT = "The captain looked at the sea, and said nothing."


def test_the_shipped_model_is_one_model():
    pytest.importorskip("torch")
    report = verify_volumes("nano_gpt", text=TEXT)
    assert report.ok
    took_part = {row.program.split(",")[0]: row for row in report.rows if row.skipped is None}
    assert {"Volume 1", "Volume 2", "Volume 3"} <= set(took_part)
    for program, row in took_part.items():
        assert row.error < (1e-3 if program == "llama.cpp" else 1e-5), program
        assert row.same_choice == report.positions, program


def test_a_program_that_differs_is_caught(monkeypatch):
    @contextmanager
    def wrong(path):
        with volumes.volume1(path) as forward:
            yield lambda ids: forward(ids) + 0.01 * (np.arange(4096) == 7)

    honest = [program for program in volumes.VOLUMES if program.needs is None]
    monkeypatch.setattr(volumes, "VOLUMES", (volumes.Program("wrong", "float32", None, 1e-4, wrong), *honest))
    report = verify_volumes("nano_gpt", text=TEXT, others=False)
    assert not report.ok and [row.ok for row in report.rows] == [False, True, True]


def program(forward, needs=None):
    @contextmanager
    def open_program(path):
        yield forward

    return volumes.Program("x", "float32", needs, 1e-4, open_program)


def test_measures_by_hand():
    expected = np.log(np.array([[0.5, 0.5], [0.9, 0.1]]))
    found = np.log(np.array([[0.25, 0.75], [0.8, 0.2]]))
    row = compare(program(lambda ids: found), "path", [1, 2], expected)
    assert row.divergence == pytest.approx(
        ((0.5 * np.log(2) + 0.5 * np.log(2 / 3)) + (0.9 * np.log(9 / 8) + 0.1 * np.log(0.5))) / 2
    )
    assert row.error == pytest.approx(np.log(2) / -np.log(0.1)) and not row.ok
    assert row.same_choice == 1  # of equals the first; then the second position


def test_what_a_machine_lacks_is_skipped():
    def lacking(ids):
        raise EnvironmentFault("no such runner here")

    missing = compare(program(lacking, needs="no_such_package_at_all"), "path", [1], None)
    assert missing.skipped == "no_such_package_at_all is not installed"
    assert compare(program(lacking), "path", [1], None).skipped == "no such runner here"
