"""The bounded GGUF reader against files that the `gguf` library writes, and against its own reader."""

import struct

import numpy as np
import pytest

from nano_llama.formats import GGUFFile
from nano_llama.formats.gguf_writer import PlannedTensor, write_gguf

gguf = pytest.importorskip("gguf")


@pytest.fixture
def their_file(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "their.gguf", "llama")
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -3)
    writer.add_uint16("u16", 60_000)
    writer.add_int16("i16", -30_000)
    writer.add_uint32("u32", 4_000_000_000)
    writer.add_int32("i32", -2_000_000_000)
    writer.add_uint64("u64", 2**63 + 1)
    writer.add_int64("i64", -(2**62))
    writer.add_float32("f32", 0.1)
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_string("text", "naïve 模型")
    writer.add_array("strings", ["a", "", "ü🦙"])
    writer.add_array("ints", [1, -2, 3])
    writer.add_array("floats", [0.5, 1.5])
    writer.add_array("bools", [True, False])
    writer.add_tensor("one", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("two", np.arange(5, dtype=np.float16))
    blocks = gguf.quants.quantize(
        np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64), gguf.GGMLQuantizationType.Q8_0
    )
    writer.add_tensor("three", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "their.gguf"


def test_every_type_of_value(their_file):
    found = GGUFFile(their_file).metadata
    assert {key: found[key] for key in ("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64")} == {
        "u8": 200, "i8": -3, "u16": 60_000, "i16": -30_000, "u32": 4_000_000_000, "i32": -2_000_000_000,
        "u64": 2**63 + 1, "i64": -(2**62),
    }  # fmt: skip
    assert found["f32"] == np.float32(0.1)
    assert found["f64"] == 0.1
    assert found["yes"] is True
    assert found["text"] == "naïve 模型"
    assert found["strings"] == ["a", "", "ü🦙"]
    assert found["ints"].tolist() == [1, -2, 3]
    assert found["floats"].tolist() == [0.5, 1.5]
    assert found["bools"].tolist() == [True, False]


def test_tensors_are_read_in_place(their_file):
    file = GGUFFile(their_file)
    assert {name: (info.kind, info.shape) for name, info in file.tensors.items()} == {
        "one": ("F32", (2, 3)), "two": ("F16", (5,)), "three": ("Q8_0", (2, 64)),
    }  # fmt: skip
    assert np.array_equal(file.blocks("one").view("<f4"), np.arange(6).reshape(2, 3))
    assert np.array_equal(file.blocks("two").view("<f2"), [np.arange(5)])
    theirs = {tensor.name: tensor.data for tensor in gguf.GGUFReader(their_file).tensors}
    assert np.array_equal(file.blocks("three"), theirs["three"])
    with pytest.raises(ValueError):
        file.blocks("one")[0, 0] = 1


def test_nested_arrays(tmp_path):
    inner = struct.pack("<IQ2B", 0, 2, 7, 8)
    nested = struct.pack("<IIQ", 9, 9, 2) + inner + struct.pack("<IQQ3s", 8, 1, 3, b"abc")
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1s", 1, b"k") + nested
    (tmp_path / "m.gguf").write_bytes(head)
    numbers, strings = GGUFFile(tmp_path / "m.gguf").metadata["k"]
    assert numbers.tolist() == [7, 8]
    assert strings == ["abc"]


def test_an_unusual_alignment(tmp_path):
    path = tmp_path / "m.gguf"
    write_gguf(path, {"general.alignment": 32}, [PlannedTensor("w", "F32", (3,), lambda: np.ones(3, np.float32))])
    assert GGUFFile(path).tensors["w"].offset % 32 == 0


def test_the_library_reads_every_value_that_we_write(tmp_path):
    metadata = {
        "int": 5, "negative": -5, "large": 2**40, "float": 0.5, "yes": True, "text": "ü", "strings": ["a", "bc"],
        "none": [],        "ints": [1, -2], "floats": [0.5, 2.0], "bools": [True, False], "u16": np.uint16(7),
        "scores": np.array([0.5, 1.5], np.float32),
    }  # fmt: skip
    write_gguf(tmp_path / "m.gguf", metadata, [PlannedTensor("w", "F32", (1,), lambda: np.ones(1, np.float32))])
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    found = {key: fields[key].contents() for key in metadata}
    assert found == metadata | {"scores": [0.5, 1.5]}
    ours = GGUFFile(tmp_path / "m.gguf").metadata
    for key, value in metadata.items():
        assert np.array_equal(ours[key], value), key


def test_a_value_without_a_gguf_type_is_refused(tmp_path):
    from nano_llama.core.errors import UserError

    for value in (None, [[1]], {"a": 1}, ["a", 1]):
        with pytest.raises(UserError, match="key"):
            write_gguf(tmp_path / "m.gguf", {"key": value}, [])


def test_the_real_model_has_the_library_s_metadata_and_bytes(smollm2, smollm2_reader):
    file, reader = GGUFFile(smollm2), smollm2_reader
    for key in (
        "general.name",
        "llama.rope.freq_base",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
        "tokenizer.chat_template",
    ):
        assert file.metadata[key] == reader.fields[key].contents(), key
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    assert file.metadata["tokenizer.ggml.token_type"].tolist() == types
    assert [tensor.name for tensor in reader.tensors] == list(file.tensors)
    for tensor in reader.tensors:
        assert np.array_equal(file.blocks(tensor.name).reshape(-1), tensor.data.reshape(-1).view(np.uint8)), tensor.name
