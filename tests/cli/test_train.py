"""`train`: flags become settings, a run becomes a folder, and what cannot be honoured is refused before it begins."""

import json

import numpy as np
import pytest

from nano_llama.cli.common import Screen
from nano_llama.cli.train import say_why_suited
from nano_llama.formats import open_weights
from nano_llama.training.metrics import read_metrics
from nano_llama.training.small_text import suited

pytest.importorskip("torch")

SHAPE = (
    *("--tokenizer", "char", "--model", "tiny", "--context", 16, "--batch-size", 4),
    *("--evaluations", 1, "--log-every", 2, "--num-threads", 1),
)


@pytest.fixture
def train(cli, tmp_path, tiny_text):
    def run(*args, out="run", data=tiny_text):
        return cli("train", *(("--data", data) if data else ()), "--out", tmp_path / out, *args)

    return run


@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_a_run(train, cli, tmp_path, engine, drawn):
    done = train(*SHAPE, "--max-steps", 6, "--engine", engine, "--json", "--quiet")
    folder = tmp_path / "run"
    assert (done.code, done.err) == (0, "")
    result = done.json
    assert result["steps"] == 6
    assert result["tokens"] == 6 * 4 * 16
    assert result["val_loss"] > 0
    settings = json.loads((folder / "train.json").read_text())
    assert (settings["engine"], settings["max_steps"], settings["context"]) == (engine, 6, 16)
    rows = read_metrics(folder / "metrics.jsonl")
    assert rows[-1]["step"] == 6
    assert rows[-1]["val_loss"] == pytest.approx(result["val_loss"])
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    spoken = cli("generate", "--model", folder, "--prompt", "the", "--max-tokens", 3, "--json")
    assert spoken.json["new_tokens"] == 3


def test_both_engines_start_from_the_same_loss(train, tmp_path):
    for engine in ("torch", "numpy"):
        assert train(*SHAPE, "--max-steps", 3, "--engine", engine, out=engine).code == 0
    first, second = (read_metrics(tmp_path / engine / "metrics.jsonl") for engine in ("torch", "numpy"))
    assert [row["train_loss"] for row in first] == pytest.approx([row["train_loss"] for row in second], abs=1e-4)


VARIANT = ("--hidden-act", "relu2", "--sliding-window", 5, "--norm-placement", "reordered")


def test_another_activation_window_and_place_of_norms_reach_both_engines_and_what_is_made_of_them(train, cli, tmp_path):
    losses = []
    for engine in ("torch", "numpy"):
        done = train(*SHAPE, *VARIANT, "--max-steps", 3, "--engine", engine, out=engine)
        assert done.code == 0, done.err
        losses.append([row["train_loss"] for row in read_metrics(tmp_path / engine / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    run = tmp_path / "torch"
    assert json.loads((run / "config.json").read_text())["model_type"] == "nano-llama"
    greedy = ("--prompt", "the", "--max-tokens", 8, "--temperature", 0, "--json")
    texts = [
        cli("generate", "--model", run, *greedy, "--engine", engine).json["text"] for engine in ("engine", "numpy")
    ]
    assert texts[0] == texts[1]
    for kind in ("hf", "gguf"):
        refused = cli("export", "--model", run, "--format", kind, "--out", tmp_path / f"out.{kind}")
        assert refused.code == 2 and " = 're" in refused.err and "pth" in refused.err, refused.err
        assert not (tmp_path / f"out.{kind}").exists()


def test_the_summary_and_the_remarks(train, tmp_path):
    done = train(*SHAPE, "--max-steps", 2)
    assert done.code == 0
    assert "validation loss" in done.out
    assert str(tmp_path / "run" / "loss.png") in done.out
    assert "nano-llama generate --model" in done.err


def test_set_and_config_give_the_same_run(train, tmp_path):
    assert train(*SHAPE, "--max-steps", 4, "--set", "lr=0.01", "--set", "seed=3").code == 0
    again = train("--config", tmp_path / "run" / "train.json", out="again", data=None)
    assert again.code == 0
    assert (tmp_path / "again" / "train.json").read_text() == (tmp_path / "run" / "train.json").read_text()
    with open_weights(tmp_path / "run") as first, open_weights(tmp_path / "again") as second:
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_preset_and_flags_over_it(train, tmp_path):
    done = train("--preset", "shakespeare-cpu", "--max-steps", 1, "--batch-size", 2, "--evaluations", 0)
    settings = json.loads((tmp_path / "run" / "train.json").read_text())
    assert done.code == 0
    assert (settings["model"], settings["batch_size"], settings["max_minutes"]) == ("char", 2, None)


def test_resume_goes_on(train, tmp_path):
    assert train(*SHAPE, "--max-steps", 4).code == 0
    done = train("--resume", "--max-steps", 7, "--json", data=None)
    assert done.json["steps"] == 7
    steps = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 7


def test_init_from(train, tiny_char_model, tmp_path):
    done = train("--init-from", tiny_char_model, "--context", 16, "--batch-size", 2, "--max-steps", 1)
    assert done.code == 0
    with open_weights(tmp_path / "run") as ours, open_weights(tiny_char_model) as theirs:
        assert {name: ours.shape(name) for name in ours} == {name: theirs.shape(name) for name in theirs}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--max-steps", "0"], "max_steps = 0"),
        (["--max-steps", "-3"], "max_steps = -3"),
        (["--max-steps", "many"], "many"),
        (["--max-steps", "1.5"], "1.5"),
        (["--max-steps", "3", "--max-minutes", "1"], "max_minutes"),
        (["--lr", "nan"], "lr = nan"),
        (["--sample-prompt", "\u00a7"], "SECTION SIGN"),
        (["--sample-prompt", "the lazy dog and more of it"], "leaves no room"),
        (["--preset", "shakespear"], "shakespear"),
        (["--model", "huge"], "huge"),
        (["--engine", "steam"], "steam"),
        (["--device", "toaster"], "toaster"),
        (["--engine", "numpy", "--device", "cuda"], "cuda"),
        (["--tokenizer", "bpe:x"], "bpe:x"),
        (["--tokenizer", "nowhere"], "nowhere"),
        (["--set", "lr"], "no '='"),
        (["--set", "learning_rate=1"], "learning_rate"),
        (["--set", "lr=fast"], "fast"),
        (["--lr", "0.1", "--set", "lr=0.2"], "given twice"),
        (["--config", "nowhere.json"], "nowhere.json"),
        (["--init-from", "nowhere"], "nowhere"),
        (["--resume"], "no run to resume"),
        (["--num-attention-heads", "7"], "7"),
        (["--context", "100000"], "100000"),
        (["--mesh", "dp=2"], "a single process was started"),
        (["--mesh-timeout", "5"], "mesh_timeout = 5"),
    ],
)
def test_what_cannot_be_honoured_is_refused(train, tmp_path, args, says):
    usual = SHAPE if not {"--model", "--tokenizer", "--context", "--init-from"} & set(args) else ("--evaluations", 0)
    steps = () if "--max-steps" in args else ("--max-steps", 1)
    done = train(*usual, *steps, *args)
    assert done.code == 2, done.shown
    assert says in done.err
    assert "inside nano-llama" not in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("data", ["nowhere", "empty.txt", "empty-folder", "junk.bin", ""])
def test_unusable_data_is_refused(train, tmp_path, data):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "empty-folder").mkdir()
    (tmp_path / "junk.bin").write_bytes(bytes(range(256)))
    done = train(*SHAPE, "--max-steps", 1, data=tmp_path / data if data else None)
    assert done.code == 2
    assert data in done.err
    assert "inside nano-llama" not in done.err
    assert not (tmp_path / "run").exists()


def test_an_existing_out_is_refused(train, tmp_path):
    assert train(*SHAPE, "--max-steps", 1).code == 0
    done = train(*SHAPE, "--max-steps", 1)
    assert done.code == 2
    assert "--resume" in done.err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    assert train(*SHAPE, "--max-steps", 1, out="other").code == 2
    (tmp_path / "file").touch()
    assert train(*SHAPE, "--max-steps", 1, out="file").code == 2


@pytest.mark.parametrize("option", ["--data", "--tokenizer", "--init-from", "--out"])
def test_an_empty_path_is_not_the_current_folder(cli, tmp_path, tiny_text, monkeypatch, option):
    monkeypatch.chdir(tiny_text.parent)  # a shell variable that is not set must not train on whatever lies here
    values = {"--data": tiny_text, "--out": tmp_path / "run", option: ""}
    done = cli("train", *(word for pair in values.items() for word in pair), *SHAPE[4:], "--max-steps", 1)
    assert done.code == 2
    assert option in done.err
    assert "empty" in done.err
    assert not (tmp_path / "run").exists()


def test_without_torch_volume_1_is_offered(train, monkeypatch):
    from nano_llama.cli import train as module

    monkeypatch.setattr(module, "has_torch", lambda: False)
    done = train(*SHAPE, "--max-steps", 1)
    assert done.code == 1
    assert "--engine numpy" in done.err
    assert train(*SHAPE, "--max-steps", 1, "--engine", "numpy").code == 0


def test_errors_as_json(train):
    done = train("--preset", "nonsense", "--json")
    assert done.code == 2
    assert "nonsense" in done.json["error"]
    assert "shakespeare-cpu" in done.json["hint"]


def test_presets_are_listed_with_what_to_expect(cli):
    from nano_llama.training.presets import EXPECTED, TRAINING_PRESETS

    assert EXPECTED.keys() == TRAINING_PRESETS.keys()
    done = cli("train", "--presets")
    assert done.code == 0
    for name, expected in EXPECTED.items():
        assert name in done.out and expected.time in done.out and expected.loss in done.out
    listed = cli("train", "--presets", "--json", "--quiet").json["presets"]
    assert listed["shakespeare-cpu"]["settings"] == TRAINING_PRESETS["shakespeare-cpu"]


def test_tensorboard_is_written_and_its_absence_answered_before_anything_is(train, tmp_path, monkeypatch):
    import sys

    if __import__("importlib").util.find_spec("tensorboardX"):
        assert train(*SHAPE, "--max-steps", 2, "--tensorboard").code == 0
        assert any((tmp_path / "run" / "tensorboard").iterdir())
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    done = train(*SHAPE, "--max-steps", 2, "--tensorboard", out="other")
    assert done.code == 1 and "[tensorboard]" in done.err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_processes_each_chooses_the_same_and_one_says_so(rank, tiny_text, monkeypatch, capsys):
    alone, reason = suited({"data": str(tiny_text), "batch_size": 4})
    launched = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}
    for name, value in launched.items():
        monkeypatch.setenv(name, str(value))
    assert suited({"data": str(tiny_text), "batch_size": 4}) == (alone, reason)
    say_why_suited(reason, Screen())
    assert alone["tokenizer"] == "char" and alone["batch_size"] == 4
    assert capsys.readouterr().err.count("is a small text") == (rank == 0)


def test_a_small_text_is_suited_and_said(train, tmp_path):
    done = train("--max-steps", 1, "--batch-size", 2, "--evaluations", 0)
    settings = json.loads((tmp_path / "run" / "train.json").read_text())
    assert (settings["tokenizer"], settings["model"], settings["batch_size"]) == ("char", "char", 2)
    assert "--tokenizer char --model char" in done.err and "--batch-size" not in done.err.splitlines()[0]
