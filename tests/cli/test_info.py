"""`info`: every kind of file is recognized by its content; junk is refused."""

import shutil

import numpy as np
import pytest

from nano_llama.core.init import init_params
from nano_llama.core.lora import LoraConfig, adapter_shapes
from nano_llama.data.prepare import prepare
from nano_llama.formats import read_config, save_gguf, save_safetensors
from nano_llama.formats.mapping import Arrays
from nano_llama.formats.peft import save_adapter_files
from nano_llama.formats.vision_folder import read_vision_language_config
from nano_llama.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def things(tmp_path_factory, tiny_model, tiny_text):
    """One of each kind."""
    place = tmp_path_factory.mktemp("things")
    config = read_config(tiny_model)
    weights = Arrays(init_params(config, seed=1))
    save_gguf(place / "m.gguf", config, weights, Tokenizer.from_pretrained(tiny_model), dtype="F32")
    (place / "alone").mkdir()
    save_safetensors(place / "alone" / "m.safetensors", weights)
    Tokenizer.from_pretrained(tiny_model).save_pretrained(_made(place / "tokenizer"))
    prepare(tiny_text, Tokenizer.from_pretrained(tiny_model), out=place / "dataset")
    return place


def _made(folder):
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("m.gguf", "model", "gguf"),
        ("alone/m.safetensors", "model", "safetensors"),
        ("tokenizer", "tokenizer", "bpe"),
        ("tokenizer/tokenizer.json", "tokenizer", "vocabulary"),
        ("dataset", "dataset", "fox"),
        ("dataset/dataset.json", "dataset", "documents"),
        ("dataset/train-00000.bin", "shard", "vocab size"),
    ],
)
def test_each_kind(cli, things, name, kind, says):
    done = cli("info", things / name)
    assert (done.code, done.err) == (0, "")
    assert says in done.out
    assert cli("info", things / name, "--json").json["kind"] == kind


def test_a_model_folder(cli, tiny_model):
    done = cli("info", tiny_model, "--json").json
    config = read_config(tiny_model)
    assert done["kind"] == "model"
    assert done["parameters"] == config.num_parameters
    assert done["config"]["hidden_size"] == config.hidden_size
    assert done["kv_cache_bytes_per_token"] == 2 * 4 * config.num_key_value_heads * config.head_dim
    assert done["tokenizer"]["vocab_size"] == config.vocab_size
    assert cli("info", tiny_model / "config.json", "--json").json["parameters"] == config.num_parameters


def test_a_model_without_a_tokenizer_says_so(cli, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    done = cli("info", tmp_path / "m")
    assert done.code == 0
    assert "No tokenizer" in done.out


def test_a_model_that_reads_images(cli, tiny_model_with_eyes):
    config = read_vision_language_config(tiny_model_with_eyes)
    for path in (tiny_model_with_eyes, tiny_model_with_eyes / "config.json"):
        shown = cli("info", path)
        assert (shown.code, shown.err) == (0, "")
        assert "Image encoder" in shown.out and f"{config.image_seq_len} tokens of the context" in shown.out
        done = cli("info", path, "--json").json
        assert done["parameters"] == config.num_parameters
        assert done["config"]["vision_config"]["hidden_size"] == config.vision_config.hidden_size


def test_a_run(cli, tmp_path, tiny_text):
    pytest.importorskip("torch")
    shape = ("--tokenizer", "char", "--model", "tiny", "--context", 16, "--evaluations", 1)
    assert cli("train", "--data", tiny_text, "--out", tmp_path / "run", "--max-steps", 3, *shape).code == 0
    done = cli("info", tmp_path / "run", "--json").json
    assert done["kind"] == "run"
    assert done["progress"]["last"]["step"] == 3
    assert done["settings"]["context"] == 16
    shown = cli("info", tmp_path / "run").out
    assert "Progress" in shown
    assert "step-00000003" in shown
    assert cli("info", tmp_path / "run" / "train.json", "--json").json["kind"] == "training settings"
    assert cli("info", tmp_path / "run" / "metrics.jsonl", "--json").json["kind"] == "metrics"
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "train.json").write_text('[{"prompt": "a"}]')  # no run
    refused = cli("info", tmp_path)
    assert refused.code == 2 and "is not a training run, but a folder of runs" in refused.err
    assert f"nano-llama info {tmp_path / 'run'}" in refused.err.replace("\n", "")
    # before its first line and weights
    for name in ("metrics.jsonl", "model.safetensors"):
        (tmp_path / "run" / name).unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert "none" in cli("info", tmp_path / "run").out


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        b"{",
        b"[1, 2]",
        b'{"a": 1}',
        b"NLSHARD\0" + bytes(300),
        b"GGUF\x03\0\0\0" + b"\xff" * 16,
        bytes(99),
    ],
)
@pytest.mark.parametrize("name", ["thing.json", "thing.bin", "tokenizer.json", "metrics.jsonl"])
def test_junk_is_refused(cli, tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    done = cli("info", tmp_path / name)
    assert done.code == 2
    assert done.out == ""
    assert name in done.err
    assert "inside nano-llama" not in done.err


def test_missing_and_empty_folders_are_refused(cli, tmp_path):
    assert cli("info", tmp_path / "nowhere").code == 2
    (tmp_path / "empty").mkdir()
    done = cli("info", tmp_path / "empty")
    assert done.code == 2
    assert "empty" in done.err
    assert cli("info").code == 2


def test_control_characters_in_a_name_are_escaped(cli, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "m\x1b[31m")
    for name in ("m\x1b[31m", "nowhere\x1b[31m"):
        shown = cli("info", tmp_path / name).shown
        assert "\x1b" not in shown
        assert "\\x1b[31m" in shown


def test_an_empty_path_is_not_the_current_folder(cli):
    done = cli("info", "")
    assert done.code == 2
    assert "empty" in done.err


@pytest.mark.slow  # reads a real model's tokenizer, in Python
def test_smollm2(cli, smollm2):
    done = cli("info", smollm2, "--json").json
    assert done["parameters"] == 134_515_008
    assert done["types"] == {"F32": 61, "Q4_1": 210, "Q8_0": 1}


@pytest.fixture
def adapter(tiny_model, tmp_path):
    lora, config = (
        LoraConfig(r=3, alpha=5, rslora=True, dora=True, target_modules=("q_proj", "down_proj")),
        read_config(tiny_model),
    )
    tensors = {name: np.ones(shape, np.float32) for name, shape in adapter_shapes(lora, config).items()}
    save_adapter_files(tmp_path / "adapter", lora, tensors, base_model="org/base")
    return tmp_path / "adapter", sum(tensor.size for tensor in tensors.values())


def test_an_adapter(cli, adapter):
    folder, parameters = adapter
    done = cli("info", folder)
    assert (done.code, done.err) == (0, "")
    for said in ("org/base", "rsLoRA + DoRA, rank 3, alpha 5, on q_proj, down_proj", f"{parameters:,}", "2.88675"):
        assert said in done.out
    found = cli("info", folder, "--json").json
    assert found["kind"] == "adapter" and found["parameters"] == parameters and found["matrices"] == 2
    assert found["r"] == 3 and found["dora"] is True and found["bytes"] == 4 * parameters


def test_a_damaged_adapter_is_an_error(cli, adapter):
    folder, _ = adapter
    (folder / "adapter_model.safetensors").unlink()
    done = cli("info", folder)
    assert done.code == 2 and "adapter_model.safetensors" in done.err
    (folder / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    assert "IA3" in cli("info", folder).err


def test_a_text(cli, tiny_text):
    done = cli("info", tiny_text, "--json").json
    text = tiny_text.read_text()
    assert (done["kind"], done["bytes"], done["characters"]) == ("text", len(text.encode()), len(text))
    assert done["distinct_characters"] == len(set(text)) and done["documents"] == {"train": 1, "val": 1}
    tokens = len(Tokenizer.from_pretrained("nano_gpt").encode(text))
    assert abs(done["estimated_tokens"] - tokens) < 0.1 * tokens
    assert f"nano-llama train --data {tiny_text} --out" in " ".join(cli("info", tiny_text).out.split())


def test_a_folder_of_texts_and_a_name(cli, tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    documents = cli("info", tmp_path, "--json").json["documents"]
    assert sum(documents.values()) == 3 and documents["val"] == 1
    assert cli("info", "stdlib", "--json").json["kind"] == "text"
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert "Name the file itself" in cli("info", tmp_path).err


def test_examples_to_fine_tune_on(cli, tmp_path):
    (tmp_path / "chats.jsonl").write_text('{"messages": [], "id": 3}\n' * 4)
    done = cli("info", tmp_path / "chats.jsonl", "--json").json
    assert (done["kind"], done["examples"], done["fields"]) == ("text", 4, ["messages", "id"])
    assert "finetune --model MODEL --data" in cli("info", tmp_path / "chats.jsonl").out
