"""`eval`: the figures agree with a loss computed here by hand, and with the run's own."""

import math

import numpy as np
import pytest

from helpers.adapters import random_adapter
from nano_llama.core.lora import LoraConfig
from nano_llama.formats import open_weights
from nano_llama.formats.peft import save_adapter_files
from nano_llama.training.metrics import read_metrics

torch = pytest.importorskip("torch")


def mean_loss(folder, text, context):
    """Cross-entropy over consecutive windows, one by one, straight from the logits."""
    from nano_llama.tokenizer import Tokenizer
    from nano_llama.vol2_torch import Llama

    model, ids = Llama.from_pretrained(folder), Tokenizer.from_pretrained(folder).encode(text)
    losses = []
    for start in range(0, len(ids) - 1, context):
        window = ids[start : start + context + 1]
        with torch.no_grad():
            logits = model(torch.tensor([window[:-1]]))[0].double().log_softmax(-1)
        losses += [-float(row[target]) for row, target in zip(logits, window[1:], strict=True)]
    return float(np.mean(losses)), len(losses)


@pytest.mark.parametrize("context", [16, 50])
def test_figures(cli, tiny_char_model, tiny_text, context):
    done = cli("eval", "--model", tiny_char_model, "--data", tiny_text, "--context", context, "--json", "--quiet")
    text = tiny_text.read_text()
    held_out = text[int(0.9 * len(text)) :]
    loss, count = mean_loss(tiny_char_model, held_out, context)
    assert (done.code, done.err) == (0, "")
    assert done.json["tokens"] == count
    assert done.json["loss"] == pytest.approx(loss, rel=1e-5)
    assert done.json["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert done.json["bits_per_byte"] == pytest.approx(loss * count / math.log(2) / len(held_out), rel=1e-5)


def test_an_adapter_counts_as_merged(cli, tiny_model, tiny_text, tmp_path):
    with open_weights(tiny_model) as weights:
        tensors = random_adapter(LoraConfig(r=2), weights.config, weights)
    save_adapter_files(tmp_path / "adapter", LoraConfig(r=2), tensors)
    given = ("--model", tiny_model, "--adapter", tmp_path / "adapter")
    assert cli("merge", *given, "--out", tmp_path / "merged").code == 0
    base, beside, merged = (
        cli("eval", *model, "--data", tiny_text, "--json").json["loss"]
        for model in (("--model", tiny_model), given, ("--model", tmp_path / "merged"))
    )
    assert beside == merged != base
    refused = cli("eval", *given, "--tasks", "x")
    assert refused.code == 2 and "nano-llama merge" in refused.err


def test_batch_size_does_not_change_the_result(cli, tiny_model, tiny_text):
    def loss(size):
        return cli("eval", "--model", tiny_model, "--data", tiny_text, "--batch-size", size, "--json").json["loss"]

    assert loss(1) == pytest.approx(loss(7), rel=1e-5)


def test_a_run_knows_its_data_and_its_loss(cli, tmp_path, tiny_text):
    shape = ("--tokenizer", "char", "--model", "tiny", "--context", 16, "--evaluations", 1)
    assert cli("train", "--data", tiny_text, "--out", tmp_path / "run", "--max-steps", 3, *shape).code == 0
    done = cli("eval", "--model", tmp_path / "run")
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert done.code == 0
    assert f"{last['val_loss']:.4f} nats" in done.out
    assert f"{last['val_bits_per_byte']:.4f}" in done.out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "--data"),
        (["--data", "nowhere"], "nowhere"),
        (["--data", "TEXT", "--context", "0"], "--context"),
        (["--data", "TEXT", "--context", "999999"], "999999"),
        (["--data", "TEXT", "--batch-size", "-1"], "--batch-size"),
        (["--data", "TEXT", "--device", "toaster"], "toaster"),
        (["--data", "TEXT", "--split", "test"], "test"),
    ],
)
def test_what_cannot_be_honoured_is_refused(cli, tiny_model, tiny_text, args, says):
    done = cli("eval", "--model", tiny_model, *(tiny_text if arg == "TEXT" else arg for arg in args))
    assert done.code == 2
    assert done.out == ""
    assert says in done.err
    assert "inside nano-llama" not in done.err


def test_text_outside_the_vocabulary(cli, tiny_char_model, tmp_path):
    (tmp_path / "x.txt").write_text("Ж" * 100)
    done = cli("eval", "--model", tiny_char_model, "--data", tmp_path / "x.txt")
    assert done.code == 2
    assert "Ж" in done.err


def test_beside_compressors_and_models(cli, tiny_model, tiny_char_model, tiny_text):
    import bz2

    beside = ("--beside", "bzip2", "--beside", "xz", "--beside", tiny_char_model)
    done = cli("eval", "--model", tiny_model, "--data", tiny_text, *beside, "--json", "--quiet")
    text = tiny_text.read_text()
    held_out = text[int(0.9 * len(text)) :].encode()
    assert done.json["beside"]["bzip2"] == 8 * len(bz2.compress(held_out, 9)) / len(held_out)
    alone = cli("eval", "--model", tiny_char_model, "--data", tiny_text, "--json").json["bits_per_byte"]
    assert done.json["beside"][str(tiny_char_model)] == alone


@pytest.mark.parametrize(
    ("args", "says"),
    [(["--tasks", "arc_easy", "--data", "x"], "--tasks"), (["--data", "x", "--limit", "3"], "--limit")],
)
def test_tasks_bring_their_own_data(cli, tiny_model, args, says):
    done = cli("eval", "--model", tiny_model, *args)
    assert done.code == 2 and says in done.err


def test_tasks_need_their_package(cli, tiny_model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    done = cli("eval", "--model", tiny_model, "--tasks", "arc_easy")
    assert done.code == 1 and "[eval]" in done.err
