"""The recipe, whole, on a small text: trained, released, measured; and twice the same losses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from nano_llama.formats import open_weights  # noqa: E402
from nano_llama.training.metrics import read_metrics  # noqa: E402
from nano_llama.training.settings_layers import make_settings  # noqa: E402
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402

RECIPE = Path(__file__).parents[2] / "recipes" / "nano_gpt.py"
TEXT = "It was the last evening of the year, and the captain, who had not slept, looked at the sea. " * 80


def test_from_a_text_to_a_release(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    command = [sys.executable, RECIPE, "--smoke", tmp_path / "book.txt", "--out", tmp_path, "--note", "A trial."]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder, results = tmp_path / "nano_gpt", json.loads((tmp_path / "nano_gpt" / "results.json").read_text())
    with open_weights(folder) as ours, open_weights(tmp_path / "nano_gpt.pth") as state:
        assert sorted(ours) == sorted(state)
        for name in ours:
            assert (ours[name] == state[name]).all(), name
    card = (folder / "README.md").read_text()
    assert f"| nano_gpt | {results['validation']['bits_per_byte']:.3f} |" in card and "A trial." in card
    assert card.count("**seed ") == 10 and "{" not in card.partition("## Samples")[0]
    assert results["steps"] == 12 and results["tokens"] == 12 * 32 * 64
    assert set(results["quantized"]) == {"bfloat16", "int8", "int4"}
    assert results["compressors"]["bzip2"] < 2
    volumes = [bits for program, bits in results["programs"].items() if program.startswith("Volume")]
    assert len(volumes) == 3 and max(volumes) - min(volumes) < 1e-4 * min(volumes)


def test_the_same_seed_and_data_give_the_same_first_losses(tmp_path):
    """The preset's own optimizer, schedule and batches, on a model and a text that are small."""
    (tmp_path / "book.txt").write_text(TEXT)
    small = ["model=tiny", "context=64", "tokenizer=bpe:300", "log_every=1", "evaluations=0"]
    losses = []
    for name in ("a", "b"):
        flags = {"data": str(tmp_path / "book.txt"), "max_steps": 40, "seed": 3}
        Trainer(make_settings(preset="nano", flags=flags, overrides=small), tmp_path / name).fit()
        losses.append([row["train_loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl")])
    assert len(losses[0]) == 40 and losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]
