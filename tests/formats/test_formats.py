"""The front of the formats room: telling files apart by content, opening and describing them."""

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from nano_llama import LlamaConfig, formats
from nano_llama.core.errors import EnvironmentFault, FormatError, UserError
from nano_llama.core.names import parameter_shapes
from nano_llama.formats import (
    describe,
    detect,
    open_model,
    open_weights,
    read_config,
    resolve_model,
    save_gguf,
    save_hf,
    save_pth,
    save_safetensors,
)
from nano_llama.formats.mapping import Arrays


class MadeWhenAsked(Arrays):
    """A model's weights, none of which exists before it is asked for."""

    def __init__(self, config):
        super().__init__({})
        self.shapes = parameter_shapes(config)

    def __getitem__(self, name):
        return np.full(self.shapes[name], 0.5, np.float32)

    def __iter__(self):
        return iter(self.shapes)

    def __len__(self):
        return len(self.shapes)

    def shape(self, name):
        return self.shapes[name]

    def dtype_name(self, name):
        return "F32"


KINDS = ["hf", "safetensors", "gguf", "pth"]


@pytest.fixture
def model(tmp_path, tiny_config, random_weights):
    config = tiny_config(initializer_range=0.02)
    weights = random_weights(config)

    def make(kind: str):
        path = tmp_path / ("model" if kind == "hf" else "model.bin")  # the name says nothing
        if kind == "hf":
            save_hf(path, config, weights)
        elif kind == "safetensors":
            save_safetensors(path, weights)
            (tmp_path / "config.json").write_text(json.dumps(config.to_hf_dict()))
        elif kind == "gguf":
            save_gguf(path, config, weights, dtype="F32")
        else:
            save_pth(path, weights, config)
        return path, config, weights

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_opens_by_its_content(model, same_tensors, kind):
    path, config, weights = model(kind)
    assert detect(path) == kind
    assert read_config(path) == config == LlamaConfig.from_pretrained(path)
    with open_weights(path) as found:
        same_tensors(found, weights)


@pytest.mark.parametrize("kind", KINDS)
def test_open_model_carries_its_config_and_parses_once(model, same_tensors, kind, monkeypatch):
    path, config, weights = model(kind)
    parsed = []
    for name in ("GGUFFile", "PthFile", "SafetensorsFile"):
        opened = getattr(formats, name)
        monkeypatch.setattr(formats, name, lambda path, opened=opened: parsed.append(path) or opened(path))
    with open_model(path) as found:
        assert found.config == config
        same_tensors(found, weights)
    assert len(parsed) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_describing_a_model(model, kind):
    path, config, weights = model(kind)
    found = describe(path)
    assert found["format"] == kind
    assert found["parameters"] == config.num_parameters
    assert found["tensors"] == len(weights)
    assert found["types"] == {"F32": len(weights)}
    assert found["bytes"] == 4 * config.num_parameters
    assert LlamaConfig.from_hf_dict(found["config"]) == config
    json.dumps(found)


def test_the_real_model_described(smollm2):
    found = describe(smollm2)
    assert found["parameters"] == 134_515_008
    assert found["types"] == {"Q4_1": 210, "Q8_0": 1, "F32": 61}
    assert found["config"]["tie_word_embeddings"] is True
    assert found["metadata"]["general.license"] == "apache-2.0"


def test_weights_without_a_config_open_unchecked(tmp_path):
    save_safetensors(tmp_path / "m.safetensors", {"w": np.ones(3, np.float32)})
    assert list(open_weights(tmp_path / "m.safetensors")) == ["w"]
    assert describe(tmp_path / "m.safetensors")["config"] is None
    with pytest.raises(UserError, match=r"config\.json"):
        read_config(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=r"config\.json"):
        open_model(tmp_path / "m.safetensors")


def test_a_config_json_itself(model):
    path, config, _ = model("hf")
    assert read_config(path / "config.json") == config


@pytest.mark.parametrize(
    ("content", "guess"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"hello, this is a text file", "neither"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, content, guess):
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(FormatError, match=guess) as caught:
        detect(tmp_path / "model.gguf")
    assert "model.gguf" in str(caught.value)


def test_a_folder_without_a_model_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(FormatError, match=r"notes\.txt"):
        detect(tmp_path)
    (tmp_path / "llama.Q4_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(FormatError, match=r"Name the file itself: .*llama\.Q4_0\.gguf"):
        detect(tmp_path)


def test_a_path_that_is_not_there(tmp_path):
    for missing in (tmp_path / "nothing", "nothing", "../nothing/at/all.gguf"):
        with pytest.raises(UserError, match="nothing"):
            resolve_model(missing)
    assert resolve_model(tmp_path) == tmp_path


@pytest.mark.parametrize("kind", ["hf", "F16", "Q8_0", "pth"])
def test_saving_holds_one_tensor_at_a_time(tmp_path, tiny_config, kind):
    """A model of 90 MB, its tensors of 1 MB made when asked for: a tenth of it may be alive, copies included."""
    config = tiny_config(hidden_size=512, intermediate_size=512, num_attention_heads=8, num_hidden_layers=16)
    lazy = MadeWhenAsked(config)
    tracemalloc.start()
    if kind == "hf":
        save_hf(tmp_path / "m", config, lazy, max_shard_bytes=10**7)
    elif kind == "pth":
        save_pth(tmp_path / "m", lazy, config)
    else:
        save_gguf(tmp_path / "m", config, lazy, dtype=kind)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * config.num_parameters / 10


def test_opening_files_needs_no_torch(model):
    """The formats room, all but .pth, works where torch is not installed."""
    path, _, _ = model("safetensors")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from nano_llama.formats import *\n"
        f"print(len(open_weights({str(path)!r})))\n"
        f"try: save_pth({str(path)!r} + '2', {{}})\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("21\n")
    assert "[train]" in done.stdout


def test_a_mistyped_path_without_the_hub_library_is_not_found(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(EnvironmentFault, match=r"runs/mistyped is not a local path.*huggingface_hub"):
        resolve_model("runs/mistyped")
