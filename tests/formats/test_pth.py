"""The .pth format against torch.save and torch.load, both ways."""

import zipfile

import ml_dtypes
import numpy as np
import pytest

from nano_llama.formats import open_weights, read_config, save_pth

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_torch_reads_what_we_write(tmp_path, tiny_config, random_weights, dtype):
    config = tiny_config(tied=True)
    weights = random_weights(config)
    save_pth(tmp_path / "m.pth", weights, config, dtype=dtype)
    content = torch.load(tmp_path / "m.pth", weights_only=True)
    assert content["config"] == config.to_hf_dict()
    assert list(content["model"]) == list(weights)
    for name, tensor in content["model"].items():
        assert str(tensor.dtype) == {"F32": "torch.float32", "F16": "torch.float16"}.get(dtype, str(tensor.dtype))
        wanted = torch.from_numpy(weights[name]).to(tensor.dtype)
        assert torch.equal(tensor, wanted), name
        assert tensor.is_contiguous()


def test_a_state_dict_without_config_loads_into_a_module(tmp_path):
    weights = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(2, np.float32)}
    save_pth(tmp_path / "m.pth", weights)
    layer = torch.nn.Linear(3, 2)
    layer.load_state_dict(torch.load(tmp_path / "m.pth", weights_only=True))
    assert np.array_equal(layer.weight.detach().numpy(), weights["weight"])


def test_every_other_type_survives(tmp_path, same_tensors):
    weights = {
        "i64": np.arange(3), "i32": np.arange(3, dtype=np.int32), "i16": np.arange(3, dtype=np.int16),
        "i8": np.arange(3, dtype=np.int8), "u8": np.arange(3, dtype=np.uint8), "bool": np.array([True, False]),
        "bf16": np.arange(3).astype(ml_dtypes.bfloat16), "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }  # fmt: skip
    save_pth(tmp_path / "m.pth", weights)
    same_tensors(open_weights(tmp_path / "m.pth"), weights)


def test_storages_are_aligned_and_the_zip_is_sound(tmp_path):
    save_pth(tmp_path / "m.pth", {"a": np.ones(3, np.float32), "b": np.ones(5, np.float32)})
    with zipfile.ZipFile(tmp_path / "m.pth") as archive:
        assert archive.testzip() is None
        for key in ("0", "1"):
            entry = archive.getinfo(f"archive/data/{key}")
            raw = (tmp_path / "m.pth").read_bytes()[entry.header_offset :]
            start = (
                entry.header_offset + 30 + int.from_bytes(raw[26:28], "little") + int.from_bytes(raw[28:30], "little")
            )
            assert start % 64 == 0


def model_of(config, weights):
    return {name: torch.from_numpy(array.copy()) for name, array in weights.items()}


@pytest.mark.parametrize("place", ["top", "model", "state_dict", "compiled", "parallel", "parameters"])
def test_we_read_what_torch_writes(tmp_path, tiny_config, random_weights, same_tensors, place):
    config = tiny_config()
    weights = random_weights(config)
    state = model_of(config, weights)
    if place in ("model", "state_dict"):
        content = {place: state, "step": 3, "optimizer": {"lr": 1e-3, "state": [torch.zeros(2)]}}
    elif place == "parameters":
        content = {name: torch.nn.Parameter(tensor) for name, tensor in state.items()}
    else:
        prefix = {"top": "", "compiled": "_orig_mod.", "parallel": "module."}[place]
        content = {prefix + name: tensor for name, tensor in state.items()}
    torch.save(content, tmp_path / "m.pth")
    same_tensors(open_weights(tmp_path / "m.pth"), weights)


def test_views_and_transposes_come_back_as_they_look(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    torch.save({"t": base.T, "part": base[1:3, ::2], "wide": torch.ones(1).expand(3)}, tmp_path / "m.pth")
    found = open_weights(tmp_path / "m.pth")
    assert np.array_equal(found["t"], base.numpy().T)
    assert np.array_equal(found["part"], base.numpy()[1:3, ::2])
    assert np.array_equal(found["wide"], np.ones(3))


def test_the_config_comes_from_the_file_or_from_beside_it(tmp_path, tiny_config, random_weights):
    config = tiny_config("mqa", rope="yarn")
    save_pth(tmp_path / "a.pth", random_weights(config), config)
    assert read_config(tmp_path / "a.pth") == config


def test_arrays_are_read_only(tmp_path):
    save_pth(tmp_path / "m.pth", {"w": np.ones(3, np.float32)})
    with pytest.raises(ValueError):
        open_weights(tmp_path / "m.pth")["w"][0] = 2
