"""`verify`: agreement exits 0, a permuted q matrix exits 1 and is named, gradients likewise."""

import shutil

import numpy as np
import pytest

from nano_llama.formats import open_weights, save_safetensors

pytest.importorskip("torch")
pytest.importorskip("transformers")

Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def permuted(tiny_model, tmp_path):
    """A copy whose first q matrix has its rows in RoPE's other layout."""
    folder = tmp_path / "permuted"
    shutil.copytree(tiny_model, folder)
    with open_weights(tiny_model) as source:
        weights = {name: np.array(source[name]) for name in source}
    heads = weights[Q].reshape(2, 2, -1, weights[Q].shape[1])  # (H, half, K/2, D)
    weights[Q] = np.ascontiguousarray(heads.swapaxes(1, 2).reshape(weights[Q].shape))
    save_safetensors(folder / "model.safetensors", weights)
    return folder


def test_a_sound_checkpoint(cli, tiny_model):
    done = cli("verify", "--model", tiny_model)
    assert done.code == 0
    assert "layer 0" in done.out
    assert "OK:" in done.out
    assert "DIFFERS" not in done.out


def test_json_and_all_rows(cli, tiny_model):
    done = cli("verify", "--model", tiny_model, "--json", "--quiet")
    assert done.json["ok"] is True
    names = [row["name"] for row in done.json["rows"] if row["kind"] == "tensor"]
    with open_weights(tiny_model) as weights:
        assert sorted(names) == sorted(weights)
    shown = cli("verify", "--model", tiny_model, "--all").out
    assert all(name in shown for name in names)


def test_a_permuted_q_matrix_is_named(cli, tiny_model, permuted):
    done = cli("verify", "--model", permuted, "--reference", tiny_model)
    assert done.code == 1
    assert Q in done.out
    assert "permutation" in done.out
    assert "DIFFERS: self_attn.q_proj, output" in done.out
    assert "DIFFERENT from transformers" in done.out
    assert cli("verify", "--model", permuted, "--reference", tiny_model, "--json").json["ok"] is False


def test_gradients(cli, tiny_model):
    done = cli("verify", "--model", tiny_model, "--gradients", "--all")
    assert done.code == 0
    with open_weights(tiny_model) as weights:
        assert all(name in done.out for name in weights)
    assert cli("verify", "--model", tiny_model, "--gradients", "--tolerance", "1e-30").code == 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--tolerance", "0"], "--tolerance"),
        (["--tolerance", "-1"], "--tolerance"),
        (["--reference", "nowhere"], "nowhere"),
        (["--gradients", "--reference", "x"], "--reference"),
    ],
)
def test_what_cannot_be_honoured_is_refused(cli, tiny_model, args, says):
    done = cli("verify", "--model", tiny_model, *args)
    assert done.code == 2
    assert says in done.err
    assert "inside nano-llama" not in done.err


def test_no_model(cli, tmp_path):
    assert cli("verify", "--model", tmp_path / "nowhere").code == 2


def test_a_model_that_ships_is_verified_in_every_program(cli):
    done = cli("verify", "nano_gpt", "--json", "--quiet")
    assert done.code == 0 and done.json["ok"]
    assert [row["program"].split(",")[0] for row in done.json["rows"]][:3] == ["Volume 1", "Volume 2", "Volume 3"]


def test_volumes_cannot_be_combined(cli, tiny_model):
    for other in (["--tolerance", 1], ["--all"], ["--gradients"], ["--reference", "x"]):
        done = cli("verify", tiny_model, "--volumes", *other)
        assert done.code == 2 and f"--volumes cannot be combined with {other[0]}" in done.err


def test_no_volumes_compares_a_shipped_model_with_transformers(cli):
    done = cli("verify", "nano_gpt", "--no-volumes", "--json", "--quiet")
    assert done.code == 0
    assert {row["kind"] for row in done.json["rows"]} >= {"tensor", "activation", "logits"}
