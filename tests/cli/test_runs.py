"""`runs`: every run in a table and in one picture, whatever its state; what is not a run is named and left out."""

import csv
import json
import os
import subprocess
import sys

import pytest

from nano_llama.core.config import LlamaConfig
from nano_llama.core.files import write_json
from nano_llama.core.presets import model_preset
from nano_llama.training.settings import TrainSettings


def fake_run(folder, losses, *, vocab_size=100, ended=None, **settings):
    """A run's folder as training leaves it, with these validation losses, one at every ten steps."""
    folder.mkdir(parents=True)
    config: LlamaConfig = model_preset("tiny", vocab_size=vocab_size)
    write_json(folder / "config.json", config.to_hf_dict())
    write_json(folder / "train.json", TrainSettings(data="stdlib", max_steps=100, **settings).to_json())
    rows = [
        {
            "step": 10 * n,
            "tokens": 640 * n,
            "train_loss": loss - 0.1,
            "train_bits_per_byte": loss / 2 - 0.1,
            "val_loss": loss,
            "val_bits_per_byte": loss / 2,
            "tokens_per_second": 100.0 * n,
            "elapsed_s": 6.5 * n,
        }
        for n, loss in enumerate(losses, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if ended is not None:
        write_json(folder / "checkpoints" / "step-00000010" / "state.json", {"step": 10, "progress": ended})
    return folder


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    fake_run(folder / "a", [3.0, 2.0, 2.5], lr=0.5, optimizer="muon", ended=1.0)
    fake_run(folder / "b", [4.0, 1.5], lr=0.001, ended=0.4)
    fake_run(folder / "deep" / "c", [], ended=None)
    return folder


def test_a_table_and_a_picture(cli, runs, drawn):
    done = cli("runs", runs)
    assert done.code == 0, done.shown
    lines = [line.split() for line in done.out.splitlines() if line]
    assert [line[0] for line in lines] == ["run", "b", "a", "deep/c"]
    assert lines[1][-1] == "stopped" and lines[2][-1] == "finished"
    assert lines[2][1:4] == ["3.4k", "muon", "0.5"] or lines[2][2:4] == ["muon", "0.5"]
    assert "2.0000" in lines[2] and "1.0000" in lines[2], "the best of them, not the last"
    assert "-" in lines[3]
    assert (runs / "runs.png").read_bytes().startswith(b"\x89PNG")
    assert str(runs / "runs.png") in done.err


def test_json_has_every_figure(cli, runs):
    done = cli("runs", runs, "--json", "--quiet", "--out", runs / "other.png")
    assert (done.code, done.err) == (0, "")
    best = done.json["runs"][1]
    assert (best["name"], best["val_loss"], best["best_step"], best["step"], best["state"]) == (
        "a",
        2.0,
        20,
        30,
        "finished",
    )
    assert (best["tokens"], best["tokens_per_second"], best["elapsed_s"], best["lr"]) == (1920, 200.0, 19.5, 0.5)
    assert done.json["left_out"] == [] and done.json["picture"] == str(runs / "other.png")
    assert (runs / "other.png").exists() and not (runs / "runs.png").exists()


@pytest.mark.parametrize(
    ("key", "order"),
    [("lr", ["b", "deep/c", "a"]), ("name", ["a", "b", "deep/c"]), ("tokens", ["deep/c", "b", "a"])],
)
def test_sorting(cli, runs, key, order):
    names = [run["name"] for run in cli("runs", runs, "--sort", key, "--json").json["runs"]]
    assert names == order
    down = [run["name"] for run in cli("runs", runs, "--sort", key, "--descending", "--json").json["runs"]]
    assert down == order[::-1]


def test_missing_values_sort_last_either_way(cli, runs):
    for more in ((), ("--descending",)):
        assert cli("runs", runs, "--sort", "val_loss", *more, "--json").json["runs"][-1]["name"] == "deep/c"


def test_single_runs_and_the_default_folder(cli, runs, monkeypatch):
    done = cli("runs", runs / "a", runs / "b", runs / "a", "--json")
    assert [run["name"] for run in done.json["runs"]] == ["b", "a"], "a run given twice is one run"
    monkeypatch.chdir(runs.parent)
    assert len(cli("runs", "--json").json["runs"]) == 3
    monkeypatch.chdir(runs / "deep")
    done = cli("runs")
    assert done.code == 2 and "no folder 'runs' here" in done.err


def test_bad_folders_are_named_and_the_rest_is_shown(cli, runs, tmp_path):
    (tmp_path / "empty").mkdir()
    (runs / "b" / "metrics.jsonl").write_text("rubbish\n")
    (runs / "deep" / "c" / "train.json").write_text("{")
    done = cli("runs", runs, tmp_path / "nowhere", tmp_path / "empty")
    assert done.code == 0
    for name in ("b", "c", "nowhere", "empty"):
        assert f"{os.sep}{name}" in done.err
    assert "Traceback" not in done.err
    found = cli("runs", runs, tmp_path / "nowhere", "--json").json
    assert [run["name"] for run in found["runs"]] == ["a"] and len(found["left_out"]) == 3
    done = cli("runs", tmp_path / "nowhere", "--json")
    assert done.code == 2 and "nowhere" in done.json["error"]


def test_a_run_in_progress_is_seen_from_another_process(cli, runs):
    script = f"""
import sys
from nano_llama.training.run_folder import RunFolder
with RunFolder({os.fspath(runs / "b")!r}).held():
    print("held", flush=True)
    sys.stdin.readline()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        states = {run["name"]: run["state"] for run in cli("runs", runs, "--json").json["runs"]}
        holder.communicate(b"\n")
    assert states == {"a": "finished", "b": "running", "deep/c": "stopped"}
    assert cli("runs", runs, "--json").json["runs"][0]["state"] == "stopped"
    assert not (runs / "b" / "run.lock").exists()


def test_different_tokenizers_are_drawn_in_bits_per_byte(cli, runs, monkeypatch):
    from nano_llama.cli import runs as module

    drawn = []
    monkeypatch.setattr(module, "plot_runs", lambda named, path, caption, in_bytes, dark: drawn.append(in_bytes))
    cli("runs", runs)
    fake_run(runs / "d", [3.0], vocab_size=200)
    cli("runs", runs)
    assert drawn == [False, True]


def test_the_caption_says_how_all_of_them_were_made(cli, runs, monkeypatch):
    from nano_llama.cli import runs as module

    captions = []
    monkeypatch.setattr(module, "plot_runs", lambda named, path, caption, **how: captions.append(caption))
    cli("runs", runs)
    fake_run(runs / "d", [3.0], vocab_size=100, seed=7)
    cli("runs", runs)
    assert all(caption.startswith("trained on stdlib; 1 layer of width 16, ") for caption in captions)
    assert not any("at 0.5" in caption for caption in captions), "one run's alone"
    assert captions[0].endswith("; seed 0") and "seed" not in captions[1]


def test_diff_shows_the_settings_that_differ_and_the_losses(cli, runs):
    done = cli("runs", runs, "--diff")
    lines = [line.split() for line in done.out.splitlines() if line]
    assert lines[0] == ["setting", "b", "a", "deep/c"]
    assert ["optimizer", "adamw", "muon", "adamw"] in lines and ["lr", "0.001", "0.5", "0.002"] in lines
    assert ["best", "val", "loss", "1.5000", "2.0000", "-"] in lines
    assert len(lines) == 1 + 2 + 3 + 1, "the header, two settings, three results, and how many are equal"
    equal = len(TrainSettings(data="stdlib").to_json()) - 2
    assert f"{equal} settings are the same in all of them." in done.out
    found = cli("runs", runs, "--diff", "--json", "--sort", "name").json
    assert found["diff"] == {"optimizer": ["muon", "adamw", "adamw"], "lr": [0.5, 0.001, 0.002]}
    assert found["equal_settings"] == equal and found["runs"][0]["settings"]["lr"] == 0.5
    one = cli("runs", runs / "a", "--diff")
    assert (one.code, one.out) == (2, "") and "there is only one" in one.err


def test_tables_for_other_programs(cli, runs, tmp_path):
    done = cli("runs", runs, "--csv", tmp_path / "new" / "runs.csv", "--metrics-csv", tmp_path / "metrics.csv")
    assert done.code == 0 and str(tmp_path / "new" / "runs.csv") in done.err
    with (tmp_path / "new" / "runs.csv").open(newline="") as file:
        assert [(row["run"], row["lr"], row["best_step"]) for row in csv.DictReader(file)] == [
            ("b", "0.001", "20"), ("a", "0.5", "20"), ("deep/c", "0.002", ""),
        ]  # fmt: skip
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [(row["run"], row["step"]) for row in csv.DictReader(file)] == [
            ("b", "10"), ("b", "20"), ("a", "10"), ("a", "20"), ("a", "30"),
        ]  # fmt: skip


def test_a_slip_does_not_replace_a_run_s_metrics(cli, runs):
    before = (runs / "a" / "metrics.jsonl").read_bytes()
    done = cli("runs", runs, "--csv", runs / "a" / "metrics.jsonl")
    assert done.code == 2 and "must end in .csv" in done.err
    assert (runs / "a" / "metrics.jsonl").read_bytes() == before
    done = cli("runs", runs, "--csv", runs / "t.csv", "--metrics-csv", runs / "t.csv")
    assert done.code == 2 and "the same file" in done.err and not (runs / "t.csv").exists()
