"""One model in every program: they agree on the model that ships, and a program that differs is caught."""

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
    honest = volumes.volume1

    def wrong(path, ids, dtype):
        found = honest(path, ids, dtype)
        return found if dtype is np.float64 else found + 0.01 * (np.arange(found.shape[1]) == 7)

    monkeypatch.setattr(volumes, "volume1", wrong)
    monkeypatch.setattr(volumes, "find_spec", lambda name: None)
    report = verify_volumes("nano_gpt", text=TEXT)
    assert not report.ok and not report.rows[0].ok
    assert [row.program.split(",")[0] for row in report.rows if row.skipped is None] == ["Volume 1", "Volume 3"]


def test_measures_by_hand():
    expected = np.log(np.array([[0.5, 0.5], [0.9, 0.1]]))
    found = np.log(np.array([[0.25, 0.75], [0.8, 0.2]]))
    row = compare("x", "float32", None, 1e-4, lambda: found, expected)
    assert row.divergence == pytest.approx(
        ((0.5 * np.log(2) + 0.5 * np.log(2 / 3)) + (0.9 * np.log(9 / 8) + 0.1 * np.log(0.5))) / 2
    )
    assert row.error == pytest.approx(np.log(2) / -np.log(0.1)) and not row.ok
    assert row.same_choice == 1  # of equals the first; then the second position


def test_what_a_machine_lacks_is_skipped():
    def lacking():
        raise EnvironmentFault("no such runner here")

    assert compare("x", "f", "no_such_package_at_all", 1.0, lacking, None).skipped == (
        "no_such_package_at_all is not installed"
    )
    assert compare("x", "f", None, 1.0, lacking, None).skipped == "no such runner here"
