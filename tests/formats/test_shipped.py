"""The model that ships: found by its name, the same weights in both files, small enough, read by every volume."""

import importlib.metadata
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nano_llama import LlamaConfig, Tokenizer
from nano_llama.formats import open_weights, resolve_model
from nano_llama.formats.shipped import DEFAULT_MODEL, shipped_model, shipped_names

ROOT = Path(__file__).parents[2]
PTH = ROOT / "nano_gpt.pth"


def test_its_name_is_a_folder_in_the_package():
    folder = shipped_model(DEFAULT_MODEL)
    assert DEFAULT_MODEL in shipped_names() and folder is not None
    assert resolve_model(DEFAULT_MODEL) == folder
    for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "README.md"):
        assert (folder / name).is_file()
    assert shipped_model("nothing") is None and shipped_model("../models/nano_gpt") is None


def test_what_lies_at_a_path_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT_MODEL).mkdir()
    assert resolve_model(DEFAULT_MODEL) == Path(DEFAULT_MODEL)


def test_shape_and_tokens():
    config, tokenizer = LlamaConfig.from_pretrained(DEFAULT_MODEL), Tokenizer.from_pretrained(DEFAULT_MODEL)
    assert 5e6 <= config.num_parameters <= 8.3e6 and config.max_position_embeddings >= 512
    assert tokenizer.vocab_size == config.vocab_size
    text = "Naïve — “quoted”, and\n\nso on."
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_both_files_hold_the_same_bfloat16_weights():
    torch = pytest.importorskip("torch")
    state = torch.load(PTH, weights_only=True)
    assert PTH.stat().st_size <= 16 * 2**20
    with open_weights(DEFAULT_MODEL) as weights:
        assert sorted(weights) == sorted(state)
        for name, tensor in state.items():
            assert tensor.dtype == torch.bfloat16
            np.testing.assert_array_equal(weights[name].astype(np.float32), tensor.float().numpy(), err_msg=name)


def test_the_card_is_made_from_the_results():
    sys.path.insert(0, str(ROOT / "recipes"))
    try:
        from nano_gpt_card import make_card
    finally:
        sys.path.pop(0)
    folder = shipped_model(DEFAULT_MODEL)
    assert folder is not None
    results = json.loads((folder / "results.json").read_text())
    assert (folder / "README.md").read_text() == make_card(results), "run  python recipes/nano_gpt.py --card"
    assert results["weights_bytes"] == (folder / "model.safetensors").stat().st_size
    assert results["parameters"] == LlamaConfig.from_pretrained(DEFAULT_MODEL).num_parameters


def test_it_has_learned_english():
    """Real English costs it less than half of what the same letters in another order cost."""
    from nano_llama.vol1_numpy import Llama

    model, tokenizer = Llama.from_pretrained(DEFAULT_MODEL), Tokenizer.from_pretrained(DEFAULT_MODEL)
    text = "He took the letter from her hand, and looked at it for a long time without a word."

    def nats(words):
        ids = np.array([tokenizer.encode(words)])
        logits = model.forward(ids[:, :-1])[0].astype(np.float64)
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return -log_probs[np.arange(ids.shape[1] - 1), ids[0, 1:]].sum()

    assert nats(text) < 0.5 * nats(text[::-1])
    assert nats(text) < nats(" ".join(text.split()[::-1]))


@pytest.mark.slow  # builds a wheel
def test_the_wheel_holds_it(tmp_path):
    built = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT]
    try:
        importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("setuptools is not installed: the wheel cannot be built offline")
    subprocess.run(built, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert "nano_llama/models/nano_gpt/model.safetensors" in names
    assert "nano_llama/models/nano_gpt/tokenizer.json" in names
