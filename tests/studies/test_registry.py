"""Every study runs quickly with a seed, draws a picture, and returns a finding that JSON can represent."""

import json
import subprocess
import sys

import pytest

from helpers.slides import watch_figures
from nano_llama.core.errors import UserError
from nano_llama.studies import STUDIES, run_study


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "parallel"])  # tests/parallel/test_study.py
def test_a_quick_run_draws_a_picture_and_returns_a_finding(name, tmp_path, monkeypatch):
    if name == "autodiff":
        pytest.importorskip("torch")
    faults = watch_figures(monkeypatch)
    finding = run_study(name, tmp_path, seed=1, quick=True)
    assert finding.name == name and faults == []
    assert finding.picture == tmp_path / f"{name}.png"
    assert finding.picture.read_bytes().startswith(b"\x89PNG") and finding.picture.stat().st_size > 10_000
    assert finding.text.endswith(".") and "nan" not in finding.text
    json.dumps(finding.to_dict(), allow_nan=False)


def test_an_unknown_study_lists_the_known_ones():
    with pytest.raises(UserError, match="norm-place"):
        run_study("norm-place")


def test_listing_studies_imports_none_of_them():
    code = "import sys, nano_llama.studies as s; assert s.STUDIES; print([m for m in sys.modules if 'matplotlib' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
