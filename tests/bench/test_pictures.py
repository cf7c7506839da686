"""The pictures of bench/results are drawn from what is kept there, without training, and are fit for a slide."""

import csv
import shutil

import pytest

from helpers.slides import watch_figures
from nano_llama.core.errors import UserError
from nano_llama.core.figures import look
from nano_llama.core.files import read_json, write_json

pytest.importorskip("torch")  # the benches train with it


def test_optimizers(bench, tmp_path, monkeypatch):
    import volume2_optimizers as script

    monkeypatch.setattr(script, "RESULT", tmp_path / "result.json")
    faults = watch_figures(monkeypatch)
    with look():
        script.draw(read_json(bench / "results/volume2_optimizers.json")["optimizers"])
    assert faults == [] and (tmp_path / "result.png").stat().st_size > 10_000


def falling(seconds: float, start: float, end: float, count: int) -> list[tuple[float, float]]:
    return [(seconds * i / count, end + (start - end) / i) for i in range(1, count + 1)]


@pytest.mark.parametrize("beside", [True, False], ids=["beside nanoGPT", "alone"])
def test_shakespeare(bench, tmp_path, monkeypatch, beside):
    import volume2_shakespeare as script

    path = tmp_path / "result.json"
    monkeypatch.setattr(script, "RESULT", path)
    shutil.copy(bench / "results/volume2_shakespeare.json", path)
    result = {key: value for key, value in read_json(path).items() if key not in ("curves", "nanogpt")}
    write_json(path, result)
    with pytest.raises(UserError, match="holds no curves"):
        script.draw()

    ours = {"train": falling(130, 4.2, 1.5, 165), "val": falling(130, 1.8, 1.56, 3)}
    theirs = {"train": falling(135, 4.2, 1.8, 2000), "val": falling(135, 2.6, 1.9, 9)}
    measured = script.kept({**result, "curves": ours})
    if beside:
        measured["nanogpt"] = script.kept({"val_loss": 1.9, "seconds": 135.0, "curves": theirs})
        train = measured["nanogpt"]["curves"]["train"]
        assert len(train["loss"]) == len(train["seconds"]) == 200 and train["seconds"][-1] == 135.0
    write_json(path, measured)
    faults = watch_figures(monkeypatch)
    script.draw()
    assert faults == [] and (tmp_path / "result.png").stat().st_size > 10_000


def test_both_volumes(bench, tmp_path, monkeypatch):
    import volume1_vs_volume2 as script

    monkeypatch.setattr(script, "RESULTS", tmp_path)
    monkeypatch.setattr(script, "CURVES", tmp_path / "curves.csv")
    with script.CURVES.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(script.COLUMNS)
        for step in range(1, 201):
            losses = (1.7 + 1 / step, 1.8 + 1 / step) if step % 20 == 0 else ("", "")
            table.writerow([step, 1.5 + 2.7 / step, 1e-7 * step, *losses])
    faults = watch_figures(monkeypatch)
    script.draw()
    assert faults == [] and (tmp_path / "volume1_vs_volume2.png").stat().st_size > 10_000
