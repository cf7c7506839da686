"""`compare`: both sides on the same seeds, a verdict and a picture; what is not comparable is refused before a step."""

import json
import signal

import pytest

from nano_llama.core.errors import UserError
from nano_llama.training.loop import TrainingLoop

SHAPE = (
    *("--tokenizer", "char", "--model", "tiny", "--context", 16, "--batch-size", 4, "--engine", "numpy"),
    *("--max-steps", 6, "--evaluations", 2, "--samples", 0),
)


@pytest.fixture
def compare(cli, tmp_path, tiny_text):
    def run(*args, data=tiny_text):
        return cli("compare", *args, "--data", data, "--out", tmp_path / "both")

    return run


def test_a_rate_that_learns_and_one_that_does_not(compare, tmp_path, drawn):
    done = compare("lr=1e-9", "lr=0.01", *SHAPE, "--seeds", 2, "--seed", 5, "--json", "--quiet")
    assert done.code == 0, done.err
    result = done.json
    assert result["sentence"].startswith("lr=0.01 is ")
    assert (tmp_path / "both" / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert [one["name"] for one in result["settings"]] == ["lr=0.01", "lr=1e-9"], "the lowest first"
    for name, losses in ((one["name"], one["losses"]) for one in result["settings"]):
        for seed, loss in zip((5, 6), losses, strict=True):
            folder = tmp_path / "both" / name / f"seed-{seed}"
            assert json.loads((folder / "train.json").read_text())["seed"] == seed
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            assert loss == min(json.loads(line).get("val_loss", 9.0) for line in lines)
    sweep = compare("lr=1e-9", "lr=0.01", "lr=0.001", *SHAPE, "--seeds", 2, "--seed", 5)
    assert sweep.err.count("is there already") == 4, "another setting adds its own runs alone"
    assert "lowest validation loss, nats per token, 2 seeds" in sweep.out
    rows = [line.split()[0] for line in sweep.out.splitlines() if line.startswith("lr=")]
    assert rows == ["lr=0.01", "lr=0.001", "lr=1e-9"]
    assert "95% for all 2 comparisons together, Bonferroni" in sweep.out
    other = compare("lr=1e-9", "lr=0.01", *SHAPE[:-6], "--max-steps", 7, "--seed", 5)
    assert other.code == 2 and "max_steps = 6, not 7" in other.err


@pytest.mark.parametrize(
    ("sides", "says"),
    [
        (("lr=0.1", "lr=0.1"), "compared with itself"),
        (("lr=0.1", "lr=1e-1"), "the same settings"),
        (("lr=0.1", "lr=0.2", "lr=0.1"), "compared with itself"),
        (("lr=0.1", "lr=0.2", "lr=1e-1"), "the same settings"),
        (("lr=0.1", "nothing"), "is not a preset"),
        (("lr=0.1", "seed=3"), "--seed"),
        (("lr=0.1", "max_steps=3"), "given for all"),
        (("lr=0.1", "data=stdlib"), "given for all"),
        (("lr=0.1", "evaluations=0"), "given for all"),
        (("lr=0.1", "mesh=dp=2"), "mesh=dp=2: mesh = 'dp=2', but compare trains in one process"),
    ],
)
def test_what_cannot_be_compared_is_refused(compare, tmp_path, sides, says):
    done = compare(*sides, *SHAPE)
    assert done.code == 2 and says in done.err
    assert not (tmp_path / "both").exists()


def test_torchrun_is_refused_by_name(compare, tmp_path, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    done = compare("lr=0.1", "lr=0.2", *SHAPE)
    assert done.code == 2 and "torchrun has started 2" in done.err and "nano-llama runs" in done.err
    assert not (tmp_path / "both").exists()


def test_a_small_text_is_said_once(compare, monkeypatch):
    def stopped(loop):
        raise UserError("stopped here")

    monkeypatch.setattr(TrainingLoop, "fit", stopped)
    done = compare("lr=0.1", "lr=0.2", "--engine", "numpy", "--max-steps", 1)
    assert done.err.count("is a small text") == 1 and "6 runs: lr=0.1, lr=0.2; 3 seeds each" in done.err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--data", "nowhere.txt"), "No data at 'nowhere.txt'"),
        (("--data", "TEXT", "--tokenizer", "nowhere.json"), "Model not found: nowhere.json"),
        (("--data", "TEXT", "--device", "cuda"), "device"),
        (("--data", "TEXT", "--out", "TEXT"), "Cannot write"),
        ((), "compare needs --data. For example:  nano-llama compare lr="),
    ],
)
def test_what_cannot_begin_is_said_alone(cli, tiny_text, more, says):
    """Not below a heading that promises runs."""
    more = [str(tiny_text) if word == "TEXT" else word for word in more]
    done = cli("compare", "lr=0.1", "lr=0.2", "--engine", "numpy", "--max-steps", 1, *more)
    assert done.code != 0 and done.out == "" and done.err.startswith(f"error: {says}"), done.err


def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(compare, tmp_path, monkeypatch):
    """It comes in the third of four runs."""
    train_step, runs = TrainingLoop.train_step, []

    def interrupted(loop, batches, lr):
        runs.append(loop.folder.path)
        if len(set(runs)) == 3:
            signal.raise_signal(signal.SIGINT)
        return train_step(loop, batches, lr)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingLoop, "train_step", interrupted)
        done = compare("lr=0.1", "lr=0.01", *SHAPE, "--seeds", 2)
    assert done.code == 130
    assert "after 1 step; progress saved in" in done.err and "2 runs of 4 are complete" in done.err
    assert "Run the same command again to go on." in done.err and "--resume" not in done.err
    done = compare("lr=0.1", "lr=0.01", *SHAPE, "--seeds", 2)
    assert done.code == 0 and done.err.count("is there already") == 2
