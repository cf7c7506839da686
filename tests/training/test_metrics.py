"""metrics.jsonl: appended, cut back, and read after a kill."""

import json

import pytest

from nano_llama.core.errors import FormatError, UserError
from nano_llama.training.metrics import MetricsWriter, read_metrics


def write(path, steps, **arguments):
    writer = MetricsWriter(path, **arguments)
    for step in steps:
        writer.write({"step": step, "train_loss": 1 / step})
    writer.close()


def test_rows_come_back_exactly(tmp_path):
    write(tmp_path / "m.jsonl", [1, 3])
    assert read_metrics(tmp_path / "m.jsonl") == [{"step": 1, "train_loss": 1.0}, {"step": 3, "train_loss": 1 / 3}]


def test_a_row_is_on_disk_before_the_file_is_closed(tmp_path):
    writer = MetricsWriter(tmp_path / "m.jsonl")
    writer.write({"step": 1})
    assert [row["step"] for row in read_metrics(tmp_path / "m.jsonl")] == [1]
    writer.close()


def test_resuming_cuts_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "m.jsonl"
    write(path, [10, 20, 30, 40])
    with path.open("a") as file:
        file.write('{"step": 50, "train_l')  # the kill came here
    assert [row["step"] for row in read_metrics(path)] == [10, 20, 30, 40]
    write(path, [30, 35], keep_to=20)
    assert [row["step"] for row in read_metrics(path)] == [10, 20, 30, 35]
    write(path, [1], keep_to=None)
    assert [row["step"] for row in read_metrics(path)] == [1], "a new run begins an empty file"


def test_every_line_is_json_proper(tmp_path):
    writer = MetricsWriter(tmp_path / "m.jsonl")
    writer.write({"step": 1, "train_loss": float("nan")})
    writer.close()
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"step": 1}


def test_damage_is_named_with_its_line(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"step": 1}\nrubbish\n')
    with pytest.raises(FormatError, match="line 2"):
        read_metrics(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_text('{"loss": 1}\n')
    with pytest.raises(FormatError, match="'step'"):
        read_metrics(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not a metrics file"):
        read_metrics(tmp_path / "m.jsonl")
    with pytest.raises(UserError, match="Cannot read"):
        read_metrics(tmp_path / "missing.jsonl")
