"""CSV files hold what the runs' own files say, as Python's csv and pandas read them; what differs is found."""

import csv
import json

import pytest

from helpers.training import FakeTrainer
from nano_llama.core.files import write_json
from nano_llama.training.metrics import read_metrics
from nano_llama.training.run_summary import summarize
from nano_llama.training.run_tables import RESULTS, differing_settings, metrics_rows, run_rows, write_csv

AWKWARD = 'He said "no", twice;\nthen: =1+1, ä, 🙂'


@pytest.fixture
def two(settings, tmp_path, hand_clock):
    """Two runs of different settings, and their rows."""
    for name, changes in (("a", {"lr": 0.1 + 0.2}), ("b", {"lr": 1e-5, "mesh_timeout": 7.0})):
        FakeTrainer(settings.replace(**changes), tmp_path / name, clock=hand_clock).fit()
    saved = json.loads((tmp_path / "b" / "train.json").read_text())
    write_json(tmp_path / "b" / "train.json", saved | {"sample_prompt": AWKWARD})
    return [summarize(tmp_path / name) for name in ("a", "b")]


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def same(cell: str, value) -> bool:
    """Whether a cell is that value, with every digit."""
    if value is None or isinstance(value, bool | str):
        return cell == {None: "", True: "true", False: "false"}.get(value, value)
    return type(value)(cell) == value


def test_a_row_per_run_says_what_its_files_say(two, tmp_path):
    write_csv(tmp_path / "runs.csv", run_rows([summary for summary, _ in two]))
    settings = two[0][0].settings.to_json()
    for row, (summary, metrics) in zip(read(tmp_path / "runs.csv"), two, strict=True):
        assert len(row) == len(RESULTS) + len(settings) == len(RESULTS.keys() | settings), "no column is two things"
        saved = json.loads((summary.path / "train.json").read_text())
        assert all(same(row[name], value) for name, value in saved.items())
        assert row["run"] == summary.name and row["path"] == str(summary.path)
        lowest = min((line for line in metrics if "val_loss" in line), key=lambda line: line["val_loss"])
        assert same(row["best_val_loss_nats_per_token"], lowest["val_loss"])
        assert same(row["best_val_bits_per_byte"], lowest["val_bits_per_byte"])
        assert same(row["best_step"], lowest["step"]) and same(row["elapsed_s"], metrics[-1]["elapsed_s"])
    assert row["sample_prompt"] == AWKWARD


def test_a_row_per_line_of_metrics(two, tmp_path):
    write_csv(tmp_path / "m.csv", metrics_rows((summary.name, rows) for summary, rows in two))
    lines = [(s.name, line) for s, _ in two for line in read_metrics(s.path / "metrics.jsonl")]
    rows = read(tmp_path / "m.csv")
    for row, (name, line) in zip(rows, lines, strict=True):
        assert row["run"] == name
        for key, value in (line | {"kernels": " ".join(line["kernels"])}).items():
            assert same(row[f"{key}_nats_per_token" if key.endswith("_loss") else key], value)
        assert sum(cell != "" for cell in row.values()) == 1 + sum(value != [] for value in line.values())


def test_pandas_reads_the_same(two, tmp_path):
    pandas = pytest.importorskip("pandas")
    write_csv(tmp_path / "m.csv", metrics_rows((summary.name, rows) for summary, rows in two))
    frame = pandas.read_csv(tmp_path / "m.csv")
    assert frame["deterministic"].dtype == bool and frame["step"].dtype == int
    for (_, rows), (_, part) in zip(two, frame.groupby("run"), strict=True):
        losses = part["val_loss_nats_per_token"].dropna()
        assert list(losses) == pytest.approx([row["val_loss"] for row in rows if "val_loss" in row], rel=1e-15)
        assert list(part["train_loss_nats_per_token"]) == pytest.approx([row["train_loss"] for row in rows], rel=1e-15)


def test_the_bytes_are_those_of_rfc_4180(tmp_path):
    rows = [{"run": "a,b", "x": 'say "hi"'}, {"run": "c\nd", "y": 1.5}]
    write_csv(tmp_path / "t.csv", rows)
    assert (tmp_path / "t.csv").read_bytes() == b'run,x,y\r\n"a,b","say ""hi""",\r\n"c\nd",,1.5\r\n'
    write_csv(tmp_path / "t.csv", [])
    assert (tmp_path / "t.csv").read_bytes() == b"run\r\n", "a table without rows has a header still"


def test_several_values_of_a_line_have_a_column_each():
    line = {"step": 1, "comm_bytes": {"dp": 8, "tp": 9}, "rank_memory_bytes": [5, 6], "kernels": ["rope", "swiglu"]}
    assert metrics_rows([("a", [line])]) == [
        {
            "run": "a", "step": 1, "comm_bytes.dp": 8, "comm_bytes.tp": 9, "rank_memory_bytes.0": 5,
            "rank_memory_bytes.1": 6, "kernels": "rope swiglu",
        }
    ]  # fmt: skip


def test_what_differs_is_what_was_changed(two):
    summaries = [summary for summary, _ in two]
    differing, equal = differing_settings(summaries)
    assert differing == {
        "lr": [0.1 + 0.2, 1e-5], "sample_prompt": [None, AWKWARD], "mesh_timeout": [600.0, 7.0],
    }  # fmt: skip
    assert equal == len(summaries[0].settings.to_json()) - 3
    assert differing_settings(summaries[:1]) == ({}, equal + 3)
