"""Hostile and damaged safetensors files and folders: each ends in our error, naming file and cause."""

import json
from pathlib import Path

import numpy as np
import pytest

from nano_llama.formats import save_hf, save_safetensors
from nano_llama.formats.safetensors import MAX_HEADER_BYTES

GOOD = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
}
DATA = bytes(32)


def file_of(header: object, data: bytes = DATA, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def with_entry(**changes: object) -> bytes:
    entry = {**GOOD["a"], **changes}
    return file_of({"a": {key: value for key, value in entry.items() if value != "absent"}, "b": GOOD["b"]})


WHOLE = file_of(GOOD)
HEADERS = {
    "a list": [GOOD],
    "a string": "hello",
    "null": None,
    "a number": 3,
    "not json": b"{nothing of the kind}",
    "empty": b"",
    "half": json.dumps(GOOD).encode()[:-9],
    "two objects": json.dumps(GOOD).encode() * 2,
    "not utf-8": b'{"\xff\xfe": 1}',
    "utf-16": json.dumps(GOOD).encode("utf-16"),
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "an endless number": b'{"a": ' + b"9" * 100_000 + b"}",
    "a name twice": b'{"a": {}, "a": {}}',
    "a dtype twice": b'{"a": {"dtype": "F32", "dtype": "F16", "shape": [8], "data_offsets": [0, 32]}}',
    "metadata of numbers": {"__metadata__": {"a": 1}, **GOOD},
    "metadata a list": {"__metadata__": ["a"], **GOOD},
    "an entry null": {**GOOD, "b": None},
    "an entry a list": {**GOOD, "b": [1]},
    "a hole": {"a": GOOD["a"], "b": {"dtype": "F16", "shape": [2], "data_offsets": [28, 32]}},
    "an overlap": {**GOOD, "b": {"dtype": "F16", "shape": [8], "data_offsets": [16, 32]}},
    "the same bytes": {**GOOD, "b": GOOD["a"]},
    "unclaimed bytes": {"a": GOOD["a"]},
    "nothing": {},
}
LENGTHS = [
    0,
    1,
    len(WHOLE) - 41,
    len(WHOLE) - 39,
    len(WHOLE),
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    MAX_HEADER_BYTES + 1,
]
ENTRIES = {
    **{
        f"dtype {value!r}": {"dtype": value}
        for value in ("F128", "f32", "", None, 3, [], {}, "Q4_0", "F8_E4M3", "absent")
    },
    **{
        f"shape {value!r}": {"shape": value}
        for value in (
            [3, 3], [2], [], [-2, -3], [2.0, 3.0], ["2", "3"], [True, 6], "23", None, 6, {}, [[2, 3]], [2**62, 2**62],
            [2**63, 3], [10**30, 0], [1] * 9, [2**32, 2**32], [0, 3], [2, None], "absent",
        )
    },
    **{
        f"offsets {value!r}": {"data_offsets": value}
        for value in (
            [0, 23], [0, 25], [24, 0], [-24, 0], [0], [0, 24, 24], [], None, 24, "0,24", [0.0, 24.0], [0, 10**30],
            [8, 32], [2**64 - 24, 2**64], [True, 24], [0, 2**63], [32, 56], {"0": 24}, "absent",
        )
    },
    "an extra key": {"stride": [1]},
    "dtype lies wider": {"dtype": "F64"},
    "dtype lies narrower": {"dtype": "F16"},
}  # fmt: skip


@pytest.fixture
def hostile(tmp_path):
    def write(content: bytes) -> Path:
        (tmp_path / "hostile.safetensors").write_bytes(content)
        return tmp_path / "hostile.safetensors"

    return write


@pytest.mark.parametrize(
    "size", [0, 1, 7, 8, 9, 40, 80, len(WHOLE) - 33, len(WHOLE) - 32, len(WHOLE) - 9, len(WHOLE) - 1]
)
def test_truncated(hostile, refuse, size):
    refuse(hostile(WHOLE[:size]))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_header_length_that_lies(hostile, refuse, length):
    refuse(hostile(file_of(GOOD, length=length)))


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_strange_header(hostile, refuse, header):
    refuse(hostile(file_of(header)))


@pytest.mark.parametrize("changes", ENTRIES.values(), ids=ENTRIES.keys())
def test_a_strange_entry(hostile, refuse, changes):
    refuse(hostile(with_entry(**changes)), "hostile.safetensors: tensor 'a'")


def test_appended_bytes(hostile, refuse):
    refuse(hostile(WHOLE + b"\0" * 100), "belong to none")


@pytest.mark.parametrize(
    "filler", [b"[],", b'{"":0},', b'"abcdef",', b"1.5,"], ids=["lists", "objects", "strings", "numbers"]
)
def test_a_header_that_wants_much_memory(hostile, refuse, filler):
    count = (MAX_HEADER_BYTES - 20) // len(filler)
    refuse(hostile(file_of(b'{"a": [' + filler * count + b"0]}")))


def test_a_header_over_the_limit(hostile, refuse):
    refuse(hostile(file_of(b"{" + b" " * MAX_HEADER_BYTES + b"}")), "header")


@pytest.mark.parametrize("position", range(0, 8 + 130, 3))
def test_one_flipped_bit(hostile, survive, position):
    damaged = bytearray(WHOLE)
    damaged[position] ^= 1 << (position % 8)
    survive(hostile(bytes(damaged)))


# -- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, tiny_config, random_weights) -> Path:
    config = tiny_config(tied=True)
    save_hf(tmp_path / "model", config, random_weights(config), max_shard_bytes=60_000)
    return tmp_path / "model"


def edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    value = change(value) or value
    path.write_text(json.dumps(value))


INDEXES = {
    "a list": lambda index: [1],
    "no map": lambda index: index.pop("weight_map") and None,
    "an empty map": lambda index: {"weight_map": {}},
    "a map of numbers": lambda index: {"weight_map": {"a": 1}},
    "a path upwards": lambda index: {"weight_map": {"a": "../../etc/passwd.safetensors"}},
    "an absolute path": lambda index: {"weight_map": {"a": "/etc/passwd.safetensors"}},
    "a folder": lambda index: {"weight_map": {"a": "sub/model.safetensors"}},
    "a pickle": lambda index: {"weight_map": {"a": "model.bin"}},
    "a missing shard": lambda index: {"weight_map": {"a": "model-9-of-9.safetensors"}},
    "a missing tensor": lambda index: index["weight_map"].update(ghost=min(index["weight_map"].values())),
    "a null name": lambda index: {"weight_map": {"a": "\0.safetensors"}},
}


@pytest.mark.parametrize("change", INDEXES.values(), ids=INDEXES.keys())
def test_a_strange_index(folder, refuse, change):
    edit(folder / "model.safetensors.index.json", change)
    refuse(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b" " * (MAX_HEADER_BYTES + 1), b"1" * 50_000]
)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_junk_json(folder, refuse, file, content):
    (folder / file).write_bytes(content)
    refuse(folder, file)


CONFIGS = {
    "huge layers": {"num_hidden_layers": 2**31 - 1},
    "more layers": {"num_hidden_layers": 10},
    "fewer layers": {"num_hidden_layers": 1},
    "huge width": {"hidden_size": 2**30},
    "huge vocabulary": {"vocab_size": 2**31 - 1},
    "endless integer": {"vocab_size": 10**400},
    "negative": {"vocab_size": -5},
    "a string": {"hidden_size": "48"},
    "a list": {"hidden_size": [48]},
    "infinite": {"rms_norm_eps": float("inf")},
    "not a number": {"rope_theta": float("nan")},
    "another architecture": {"model_type": "mamba"},
    "architectures a number": {"model_type": None, "architectures": 5},
    "rope a string": {"rope_scaling": "yarn"},
    "rope a list": {"rope_scaling": [1, 2]},
    "rope type a list": {"rope_scaling": {"rope_type": ["x"]}},
    "rope unknown": {"rope_scaling": {"rope_type": "abc", "factor": 2}},
    "biases": {"attention_bias": True},
    "quantized": {"quantization_config": {"bits": 4}},
    "untied": {"tie_word_embeddings": False},
    "more heads": {"num_key_value_heads": 3},
    "odd heads": {"num_key_value_heads": 4},
    "token ids": {"eos_token_id": [[1]]},
}


@pytest.mark.filterwarnings("ignore:.*unknown and ignored")
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_config_that_lies(folder, refuse, changes):
    edit(folder / "config.json", lambda config: config | changes)
    refuse(folder)


def test_a_tied_head_that_lies(tmp_path, tiny_config, random_weights, refuse):
    config = tiny_config(tied=False)
    save_hf(tmp_path / "m", config, random_weights(config))
    edit(tmp_path / "m" / "config.json", lambda raw: raw | {"tie_word_embeddings": True})
    refuse(tmp_path / "m", "tie_word_embeddings")


def test_a_tensor_of_another_type(tmp_path, tiny_config, random_weights, refuse):
    """Whole numbers where weights are due."""
    config = tiny_config()
    weights = random_weights(config)
    save_hf(tmp_path / "m", config, weights)
    weights["model.norm.weight"] = np.ones(48, np.int64)
    save_safetensors(tmp_path / "m" / "model.safetensors", weights)
    refuse(tmp_path / "m", "model.norm.weight")


def test_a_shard_cut_short(folder, refuse):
    shard = max(folder.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-5])
    refuse(folder, shard.name)
