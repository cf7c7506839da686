"""`quantize`: the folder it writes is read by every command, and an unknown scheme is refused."""

import numpy as np
import pytest

from nano_llama.formats import open_weights


@pytest.fixture(scope="module")
def model(make_tiny, tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("m") / "tiny", hidden_size=64, intermediate_size=96)


def test_a_folder_is_made_and_says_what_it_holds(cli, model, tmp_path):
    done = cli("quantize", "--model", model, "--to", "int4", "--out", tmp_path / "q", "--json", "--quiet")
    assert done.code == 0, done.shown
    assert done.json["matrices"] == {"Q8_0": 1, "Q4_1": 7}
    assert done.json["bytes"] < done.json["bytes_before"] / 3
    with open_weights(model) as before, open_weights(tmp_path / "q") as after:
        for name in before:
            step = 0 if "norm" in name else np.ptp(before[name], axis=1).max() / 15 / 2 * 1.01
            assert np.abs(before[name] - after[name]).max() <= step, name
    assert cli("info", tmp_path / "q").code == 0


def test_what_cannot_be_honoured_is_refused(cli, model, tmp_path):
    done = cli("quantize", "--model", model, "--to", "int5", "--out", tmp_path / "q")
    assert done.code == 2
    assert "int5" in done.err and "int4" in done.err
    (tmp_path / "there").mkdir()
    assert cli("quantize", "--model", model, "--to", "int4", "--out", tmp_path / "there").code == 2
    assert not (tmp_path / "q").exists()
