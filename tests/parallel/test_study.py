"""The study of many processes: what it counts is the formula's, and what a rank holds is a share."""

import pytest

pytest.importorskip("torch")

from nano_llama.studies import parallel

pytestmark = pytest.mark.parallel


@pytest.mark.slow
def test_counted_and_formula(tmp_path):
    finding = parallel.run(tmp_path / "parallel.png", quick=True)
    figures, (config, _) = finding.figures, parallel.shape(quick=True)
    for axis in parallel.AXES:
        assert figures["counted"][axis] == pytest.approx(figures["formula"][axis], rel=0.02), axis
        at_two = figures["held"][axis][1]
        assert figures["held_counted"][axis] == pytest.approx(at_two, rel=0.01), axis
    assert figures["held"]["dp"] == [config.num_parameters] * len(parallel.RANKS)
    assert figures["held"]["fsdp"][-1] == pytest.approx(config.num_parameters / parallel.RANKS[-1])
    assert finding.picture.stat().st_size > 10_000 and "MB formula" in finding.text
