"""`study`: the list, a run with its picture and finding, and unknown names. The studies themselves: tests/studies/."""

import pytest

from nano_llama import studies
from nano_llama.studies import STUDIES, Finding, Study


@pytest.fixture
def fake_study(monkeypatch):
    def run(picture, seed, quick):
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(b"picture")
        return Finding("fake", f"found with seed {seed}, quick {quick}", picture, {"x": [1.0]})

    monkeypatch.setattr(Study, "load", lambda self: run)
    monkeypatch.setitem(studies.STUDIES, "fake", Study("What a test asks.", "nowhere"))


def test_the_list(cli):
    done = cli("study")
    assert done.code == 0
    for name, study in STUDIES.items():
        assert name in done.out
        assert study.help in done.out
    assert cli("study", "--json").json["studies"].keys() == STUDIES.keys()


def test_a_run(cli, fake_study, tmp_path):
    done = cli("study", "fake", "--out", tmp_path / "pictures", "--seed", 7, "--quick")
    assert done.code == 0
    assert "found with seed 7, quick True" in done.out
    assert str(tmp_path / "pictures" / "fake.png") in done.out
    assert (tmp_path / "pictures" / "fake.png").read_bytes() == b"picture"
    found = cli("study", "fake", "--out", tmp_path, "--json", "--quiet", "--format", "svg", "--dark")
    assert found.json["picture"] == str(tmp_path / "fake.svg")
    assert found.json["figures"] == {"x": [1.0]}
    assert found.err == ""


@pytest.mark.parametrize(("args", "says"), [(["nonsense"], "nonsense"), (["autodiff", "--seed", "-1"], "--seed")])
def test_mistakes(cli, args, says):
    done = cli("study", *args)
    assert done.code == 2
    assert says in done.err
