"""Our safetensors reader and writer against the library's, both ways."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from nano_llama.core.errors import UserError
from nano_llama.formats import SafetensorsFile, save_safetensors  # type: ignore[attr-defined]

RNG = np.random.default_rng(0)
TENSORS = {
    "f32": RNG.standard_normal((3, 5)).astype(np.float32),
    "f16": RNG.standard_normal((2, 3, 1)).astype(np.float16),
    "f64": RNG.standard_normal(7),
    "odd": np.arange(3, dtype=np.int8),
    "i64": np.arange(4) - 2,
    "bool": np.array([True, False, True]),
    "scalar": np.array(3.5, np.float32),
    "empty": np.zeros((0, 4), np.float32),
}


def test_the_library_reads_what_we_write(tmp_path, same_tensors):
    save_safetensors(tmp_path / "m.safetensors", TENSORS, metadata={"who": "us"})
    same_tensors(safetensors.numpy.load_file(tmp_path / "m.safetensors"), TENSORS)


def test_we_read_what_the_library_writes(tmp_path, same_tensors):
    safetensors.numpy.save_file(TENSORS, tmp_path / "m.safetensors", metadata={"who": "them"})
    with SafetensorsFile(tmp_path / "m.safetensors") as found:
        same_tensors(found, TENSORS)
        assert found.metadata["who"] == "them"
        assert (found.shape("f16"), found.dtype_name("f16"), found.nbytes("f16")) == ((2, 3, 1), "F16", 12)


def test_bfloat16_both_ways(tmp_path):
    ours = RNG.standard_normal((4, 6)).astype(ml_dtypes.bfloat16)
    save_safetensors(tmp_path / "a.safetensors", {"w": ours})
    theirs = safetensors.torch.load_file(tmp_path / "a.safetensors")["w"]
    assert theirs.dtype == torch.bfloat16
    assert np.array_equal(theirs.float().numpy(), ours.astype(np.float32))
    safetensors.torch.save_file({"w": theirs}, tmp_path / "b.safetensors")
    assert np.array_equal(SafetensorsFile(tmp_path / "b.safetensors")["w"], ours)


def test_casting_on_the_way_out(tmp_path):
    save_safetensors(tmp_path / "m.safetensors", {"w": TENSORS["f32"]}, dtype="F16")
    assert np.array_equal(SafetensorsFile(tmp_path / "m.safetensors")["w"], TENSORS["f32"].astype(np.float16))


def test_arrays_are_read_only_views_that_outlive_the_file(tmp_path):
    save_safetensors(tmp_path / "m.safetensors", TENSORS)
    with SafetensorsFile(tmp_path / "m.safetensors") as file:
        array = file["f32"]
    assert np.array_equal(array, TENSORS["f32"])
    with pytest.raises(ValueError):
        array[0, 0] = 1
    with pytest.raises(ValueError, match="closed"):
        file["f32"]


def test_an_unaligned_tensor_comes_back_aligned(tmp_path):
    header = json.dumps(
        {
            "a": {"dtype": "I8", "shape": [3], "data_offsets": [0, 3]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
        }
    ).encode()
    data = bytes([1, 2, 3]) + np.array([1.5, 2.5], np.float32).tobytes()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    found = SafetensorsFile(tmp_path / "m.safetensors")["b"]
    assert found.flags.aligned
    assert found.tolist() == [1.5, 2.5]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.safetensors"
    save_safetensors(path, {"w": TENSORS["f32"]})
    before = path.read_bytes()
    with pytest.raises(UserError, match="too large"):
        save_safetensors(path, {"w": np.array([1e30])}, dtype="F16")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]
