"""`finetune`: what the data are is said before a step, what has changed after the last, and a bad line is named."""

import json
import signal

import numpy as np
import pytest

pytest.importorskip("torch")

from helpers.finetuning import save_chat_model, save_questions
from nano_llama.formats import open_weights
from nano_llama.formats.safetensors import SafetensorsFile
from nano_llama.training.progress_bar import ProgressBar

STEPS = (*("--max-steps", 2, "--evaluations", 1, "--sample-tokens", 4), *("--set", "log_every=1"))
COMPUTE = ("--context", 96, "--batch-size", 2, "--num-threads", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_chat_model(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def held_out(tmp_path):
    (tmp_path / "held-out.txt").write_text("Nobody remembers who built the bridge, or why. " * 40)
    return ("--held-out", tmp_path / "held-out.txt")


@pytest.fixture
def finetune(cli, tmp_path, model, held_out):
    def run(*args, out="run", data=None, steps=STEPS):
        chats = data or save_questions(tmp_path / "chats.jsonl", 30)
        given = ("--model", model, "--data", chats, "--out", tmp_path / out)
        return cli("finetune", *given, *COMPUTE, *held_out, *steps, *args)

    return run


def test_a_run_as_json(finetune, cli, tmp_path, model):
    done = finetune("--json", "--quiet")
    assert (done.code, done.err) == (0, "")
    result = done.json
    assert result["steps"] == 2 and result["val_loss"] == pytest.approx(result["after"]["validation"]["loss"])
    assert result["before"]["validation"]["loss"] > 0 and len(result["before"]["answers"]) == 3
    assert {"prompt", "expected", "text", "right", "shown"} == result["after"]["answers"][0].keys()
    train = result["data"]["train"]
    assert train["examples"] == 27 and train["messages"] == {"user messages": 27, "assistant messages": 27}
    assert "".join(text for text, _ in train["samples"][0]["pieces"]).startswith("<|im_start|>user\n0. What is")
    assert result["data"]["unread_fields"] == {} and result["data"]["val"]["cut"] == []
    report = (tmp_path / "run/report.md").read_text()
    assert result["report"] == str(tmp_path / "run/report.md") and "## What has changed" in report
    assert (tmp_path / "run/adapter_model.safetensors").is_file()
    listed = cli("runs", tmp_path, "--json").json["runs"]
    assert [run["name"] for run in listed] == ["run"]
    assert cli("info", tmp_path / "run", "--json").json["kind"] == "run"


def test_what_it_says(finetune, tmp_path):
    done = finetune()
    assert done.code == 0
    before, after = done.err.split("First the model answers")
    assert "chats.jsonl, line 1:" in before and "⟦It is a dog<|im_end|>⟧" in before and "27" in before
    assert "step 2: validation loss" in after and "memory: about" in after and "are trained" in after
    assert "0 of 3 answers exactly right" in after and "nano-llama merge --model" in after
    assert "answers exactly right" in done.out and "bits per byte of held-out.txt" in done.out
    assert str(tmp_path / "run/report.md") in after


def test_check_data_trains_nothing(cli, tmp_path, model):
    chats = save_questions(tmp_path / "chats.jsonl", 30)
    done = cli("finetune", "--model", model, "--data", chats, "--context", 96, "--check-data")
    assert done.code == 0 and "⟦It is a dog<|im_end|>⟧" in done.out and not (tmp_path / "run").exists()
    as_json = cli("finetune", "--model", model, "--data", chats, "--context", 96, "--check-data", "--json").json
    assert as_json["train"]["examples"] == 27 and as_json["val"]["examples"] == 3


def test_the_whole_model_can_be_trained(finetune, cli, tmp_path):
    assert finetune("--adapter", "none").code == 0
    report = (tmp_path / "run/report.md").read_text()
    assert "nano-llama merge" not in report and "All " in report
    said = cli("generate", "--model", tmp_path / "run", "--prompt", "What", "--max-tokens", 2, "--json")
    assert said.json["new_tokens"] <= 2


def test_merging_as_the_report_says_gives_the_model(finetune, cli, tmp_path):
    finetune()
    command = next(line for line in (tmp_path / "run/report.md").read_text().splitlines() if "merge" in line)
    done = cli(*command.partition("#")[0].split()[1:])
    assert done.code == 0, done.shown
    with open_weights(f"{tmp_path / 'run'}-merged") as weights:
        assert weights.config.hidden_size == 32


def test_resume_needs_nothing_else(finetune, cli, tmp_path):
    assert finetune().code == 0
    ended = cli("finetune", "--out", tmp_path / "run", "--resume")
    assert ended.code == 2 and "has ended" in ended.err
    done = cli("finetune", "--out", tmp_path / "run", "--resume", "--epochs", 1, "--json")
    assert done.code == 0, done.shown
    assert done.json["steps"] > 2 and done.json["before"]["answers"]


def test_stopped_by_ctrl_c_and_resumed_it_is_the_same_adapter(finetune, cli, tmp_path, monkeypatch):
    monkeypatch.setattr(ProgressBar, "stepped", lambda bar, record: signal.raise_signal(signal.SIGINT))
    steps = ("--max-steps", 4, *STEPS[2:])
    stopped = finetune(steps=steps)
    assert stopped.code == 130 and not (tmp_path / "run/report.md").exists()
    command = stopped.err.partition("Resume with:")[2].split()
    assert command == ["nano-llama", "finetune", "--out", str(tmp_path / "run"), "--resume"]
    monkeypatch.undo()
    assert cli(*command[1:], "--max-steps", 4).code == 0
    assert finetune(out="whole-4", steps=steps).code == 0
    whole, resumed = (tensors_of(tmp_path / name) for name in ("whole-4", "run"))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


def tensors_of(folder):
    with SafetensorsFile(folder / "adapter_model.safetensors") as file:
        return {name: np.array(file[name]) for name in file}


def test_a_config_runs_again(finetune, cli, tmp_path):
    assert finetune().code == 0
    again = cli("finetune", "--config", tmp_path / "run/train.json", "--out", tmp_path / "again", "--no-packing")
    assert again.code == 0, again.shown
    first, second = (json.loads((tmp_path / name / "train.json").read_text()) for name in ("run", "again"))
    assert first | {"packing": False} == second


def test_an_existing_out_is_refused_before_the_data_are_read(finetune, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/file").touch()
    done = finetune(data=tmp_path / "nowhere")
    assert done.code == 2 and "already exists" in done.err and "nowhere" not in done.err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--rank", "0"], "rank = 0"),
        (["--adapter", "qlora"], "adapter = 'qlora'"),
        (["--adapter", "none", "--base-quantization", "int4"], "is for an adapter"),
        (["--held-out", "nowhere"], "nowhere"),
        (["--context", "4096"], "positions"),
        (["--method", "dpo"], "method = 'dpo'"),
        (["--set", "tokenizer=char"], "cannot be combined with init_from"),
        (["--model", "nowhere"], "nowhere"),
        (["--model", ""], "--model is empty"),
    ],
)
def test_what_cannot_be_honoured_is_refused(cli, tmp_path, model, args, says):
    chats = save_questions(tmp_path / "chats.jsonl", 30)
    usual = () if "--model" in args else ("--model", model)
    done = cli("finetune", *usual, "--data", chats, "--out", tmp_path / "run", *args)
    assert done.code == 2, done.shown
    assert says in done.err and "inside nano-llama" not in done.err and not (tmp_path / "run").exists()
