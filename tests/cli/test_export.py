"""`export`: what is written is read back with the same weights, by us and by others."""

import json
import shutil

import numpy as np
import pytest

from helpers.adapters import random_adapter
from nano_llama.core.lora import LoraConfig
from nano_llama.formats import detect, open_weights
from nano_llama.formats.gguf_reader import GGUFFile
from nano_llama.formats.peft import save_adapter_files
from nano_llama.formats.vision_folder import open_vision_language
from nano_llama.tokenizer import Tokenizer

OUT = {"hf": "out", "pth": "out.pth", "gguf": "out.gguf"}


def same(first, second, tolerance):
    with open_weights(first) as a, open_weights(second) as b:
        assert a.keys() == b.keys()
        for name in a:
            scale = np.abs(a[name].astype(np.float32)).max()
            assert np.abs(a[name].astype(np.float32) - b[name].astype(np.float32)).max() <= tolerance * scale, name


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [("hf", "auto", 0), ("hf", "bfloat16", 2**-8), ("pth", "auto", 0), ("pth", "float16", 2**-11),
     ("gguf", "auto", 2**-11), ("gguf", "float32", 0), ("gguf", "BF16", 2**-8)],
)  # fmt: skip
def test_weights_survive(cli, tiny_model, tmp_path, kind, dtype, tolerance):
    if kind == "pth":
        pytest.importorskip("torch")
    out = tmp_path / OUT[kind]
    done = cli("export", "--model", tiny_model, "--format", kind, "--out", out, "--dtype", dtype)
    assert done.code == 0, done.err
    assert detect(out) == kind
    same(tiny_model, out, tolerance)
    assert str(out) in done.out
    if kind != "pth":
        assert "included" in done.out
        ours, theirs = Tokenizer.from_pretrained(tiny_model), Tokenizer.from_pretrained(out)
        assert ours.encode("the quick brown") == theirs.encode("the quick brown")


def test_json(cli, tiny_model, tmp_path):
    done = cli("export", "--model", tiny_model, "--format", "hf", "--out", tmp_path / "out", "--json", "--quiet")
    assert done.err == ""
    files = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert done.json["bytes"] == files
    assert done.json["tokenizer"] is True


def test_a_char_level_tokenizer_loads_in_transformers(cli, tiny_char_model, tmp_path):
    transformers = pytest.importorskip("transformers")
    assert cli("export", "--model", tiny_char_model, "--format", "hf", "--out", tmp_path / "out").code == 0
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs("the quick")["input_ids"] == Tokenizer.from_pretrained(tiny_char_model).encode("the quick")


@pytest.mark.parametrize("kind", OUT)
def test_an_existing_out_is_refused_and_left_alone(cli, tiny_model, tmp_path, kind):
    out = tmp_path / OUT[kind]
    out.write_text("precious")
    done = cli("export", "--model", tiny_model, "--format", kind, "--out", out)
    assert done.code == 2
    assert "already exists" in done.err
    assert out.read_text() == "precious"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--format", "onnx"], "onnx"),
        (["--format", "hf", "--dtype", "q8_0"], "q8_0"),
        (["--format", "gguf", "--dtype", "q9"], "q9"),
        (["--format", "gguf", "--dtype", "q8_0"], "embed_tokens"),  # rows of 16 are not blocks of 32
        ([], "export needs --format."),
    ],
)
def test_what_cannot_be_honoured_is_refused(cli, tiny_model, tmp_path, args, says):
    done = cli("export", "--model", tiny_model, "--out", tmp_path / "out", *args)
    assert done.code == 2
    assert says in done.err
    assert "inside nano-llama" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_gguf_holds_no_char_level_tokenizer(cli, tiny_char_model, tmp_path):
    done = cli("export", "--model", tiny_char_model, "--format", "gguf", "--out", tmp_path / "out.gguf")
    assert done.code == 2
    assert "char" in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_path_is_an_error(cli, tiny_model, tmp_path):
    (tmp_path / "file").touch()
    done = cli("export", "--model", tiny_model, "--format", "hf", "--out", tmp_path / "file" / "out")
    assert done.code in (1, 2)
    assert "inside nano-llama" not in done.err


@pytest.mark.slow  # copies a real model
def test_smollm2_keeps_its_blocks(cli, smollm2, tmp_path):
    out = tmp_path / "copy.gguf"
    assert cli("export", "--model", smollm2, "--format", "gguf", "--out", out, "--dtype", "keep").code == 0
    with open_weights(smollm2) as first, open_weights(out) as second:
        for name in first:
            assert first.dtype_name(name) == second.dtype_name(name)
            assert np.array_equal(first.raw(name).blocks, second.raw(name).blocks)


def test_what_the_folder_says_about_generating_is_kept(cli, make_tiny, tmp_path):
    """Llama 3's folders name further ids that end an answer there alone."""
    model = make_tiny(tmp_path / "model")
    (model / "generation_config.json").write_text('{"eos_token_id": [0, 7], "temperature": 0.6}')
    assert cli("export", "--model", model, "--format", "hf", "--out", tmp_path / "out").code == 0
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written["eos_token_id"] == [0, 7] and written["temperature"] == 0.6
    assert Tokenizer.from_pretrained(tmp_path / "out").stop_ids == Tokenizer.from_pretrained(model).stop_ids >= {0, 7}


@pytest.fixture
def adapter(tiny_model, tmp_path):
    lora = LoraConfig(r=3)
    with open_weights(tiny_model) as weights:
        tensors = random_adapter(lora, weights.config, weights)
    save_adapter_files(tmp_path / "adapter", lora, tensors, base_model=str(tiny_model))
    return tmp_path / "adapter"


def test_an_adapter_becomes_llama_cpps(cli, adapter, tiny_model, tmp_path):
    """The rows of q and k depend on the model: on the one the adapter names, or --base."""
    for name, base in (("named.gguf", ()), ("given.gguf", ("--base", tiny_model))):
        done = cli("export", "--model", adapter, "--format", "gguf", "--out", tmp_path / name, *base)
        assert done.code == 0, done.shown
        assert f"--lora {tmp_path / name}" in done.out
    files = [GGUFFile(tmp_path / name) for name in ("named.gguf", "given.gguf")]
    assert all(file.metadata["general.type"] == "adapter" and len(file.tensors) == 2 * 7 for file in files)
    for name, info in files[0].tensors.items():
        assert info.kind == "F32"
        assert np.array_equal(files[0].blocks(name), files[1].blocks(name))


def test_an_adapter_is_exported_as_gguf_only_and_beside_its_model(cli, adapter, tiny_model, make_tiny, tmp_path):
    other, out = make_tiny(tmp_path / "other", hidden_size=24), tmp_path / "out"
    for arguments, said in (
        (["--model", adapter, "--format", "hf"], "nano-llama merge"),
        (["--model", adapter, "--format", "gguf", "--base", other], "adapter of another model?"),
        (["--model", adapter, "--format", "gguf", "--dtype", "q8_0"], "q8_0"),
        (["--model", tiny_model, "--format", "gguf", "--base", tiny_model], "belongs to an adapter"),
    ):
        done = cli("export", "--out", out, *arguments)
        assert done.code == 2 and said in done.err, done.shown
    assert not out.exists()


def test_a_model_that_reads_images(cli, tiny_model_with_eyes, tmp_path):
    source = shutil.copytree(tiny_model_with_eyes, tmp_path / "m")
    (source / "processor_config.json").write_text("{}")
    done = cli("export", "--model", source, "--format", "hf", "--out", tmp_path / "x", "--json")
    assert done.code == 0 and done.json["tokenizer"] and done.json["bytes"] > 0, done.err
    config, weights = open_vision_language(tmp_path / "x")
    before, own = open_vision_language(tiny_model_with_eyes)
    assert config == before and all(np.array_equal(weights[name], own[name]) for name in own)
    assert (tmp_path / "x" / "processor_config.json").read_text() == "{}"
    refused = cli("export", "--model", tiny_model_with_eyes, "--format", "gguf", "--out", tmp_path / "x.gguf")
    assert refused.code == 2 and "reads images" in refused.err and "--format hf" in refused.err
