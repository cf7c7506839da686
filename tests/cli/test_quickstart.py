"""`quickstart`: the whole way from text to text, with the shortest training run."""

import pytest

from nano_llama.cli import quickstart
from nano_llama.training.metrics import read_metrics


@pytest.fixture
def quick(cli, tmp_path, monkeypatch, tiny_text):
    """Runs in an empty folder, on a small text in place of the whole standard library."""
    monkeypatch.chdir(tmp_path)
    make = quickstart.make_settings

    def small(**kwargs):
        return make(**kwargs).replace(
            data=str(tiny_text), tokenizer="bpe:300", model="tiny", context=64, evaluations=1
        )  # fmt: skip

    monkeypatch.setattr(quickstart, "make_settings", small)
    return lambda *args: cli("quickstart", *args)


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_from_text_to_text(quick, tmp_path, engine, drawn):
    if engine == "torch":
        pytest.importorskip("torch")
    done = quick("--engine", engine, "--max-steps", 3)
    assert done.code == 0, done.err
    for heading in (
        "1. Text into tokens",
        "2. A fresh model",
        "3. Training",
        "4. What it learned",
        "5. One model",
        "Next",
    ):
        assert heading in done.err
    assert "nano-llama learn" in done.err.splitlines()[-1], "it ends with where to learn how it works"
    assert "Chapter 1" in done.err.splitlines()[-2]
    assert "validation loss" in done.out
    folder = tmp_path / "runs" / "quickstart"
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert read_metrics(folder / "metrics.jsonl")[-1]["step"] == 3


def test_json(quick, tmp_path):
    done = quick("--engine", "numpy", "--max-steps", 2, "--json", "--quiet", "--out", tmp_path / "here")
    assert done.err == ""
    result = done.json
    assert result["steps"] == 2
    assert result["before"] != result["after"]
    assert result["greeting"].startswith("Once upon a time") and result["volumes"]["ok"]
    assert result["plot"] == str(tmp_path / "here" / "loss.png")


def test_a_second_run_takes_the_next_free_folder(quick, tmp_path):
    for _ in range(2):
        assert quick("--engine", "numpy", "--max-steps", 1).code == 0
    assert (tmp_path / "runs" / "quickstart-2" / "loss.png").exists()


def test_without_torch_volume_1_trains(quick, monkeypatch):
    monkeypatch.setattr(quickstart, "has_torch", lambda: False)
    done = quick("--max-steps", 1, "--json")
    assert done.json["engine"] == "numpy"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--max-steps", "0"], "--max-steps"),
        (["--max-minutes", "-1"], "--max-minutes"),
        (["--max-steps", "1", "--max-minutes", "1"], "both given"),
        (["--engine", "engine"], "engine"),
        (["--out", "taken"], "taken"),
    ],
)
def test_what_cannot_be_honoured_is_refused(quick, tmp_path, args, says):
    (tmp_path / "taken").write_text("x")
    done = quick(*args)
    assert done.code == 2
    assert says in done.err
    assert "inside nano-llama" not in done.err


def test_the_real_preset_reads_the_standard_library_and_knows_its_time():
    from nano_llama.training.settings_layers import make_settings

    settings = make_settings(preset=quickstart.PRESET, flags={"max_minutes": quickstart.MINUTES})
    assert settings.data == "stdlib"
    assert 1.0 <= settings.max_minutes <= 1.5
