"""Hostile and damaged GGUF files: lengths, counts, offsets and types that lie. Each ends in our error."""

import struct
from pathlib import Path

import numpy as np
import pytest

from nano_llama.formats import GGUFFile, save_gguf
from nano_llama.formats.gguf_reader import MAX_STRING_BYTES, MAX_STRINGS
from nano_llama.formats.gguf_writer import PlannedTensor, write_gguf


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str | bytes, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def row(
    name: str | bytes = "w", shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0, dimensions: int = -1
) -> bytes:
    count = len(shape) if dimensions < 0 else dimensions
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", count, *shape, kind, offset)


def gguf(
    entries: list[bytes] = (),  # type: ignore[assignment]
    rows: list[bytes] = (),  # type: ignore[assignment]
    *,
    data: bytes = bytes(64),
    version: int = 3,
    num_tensors: int | None = None,
    num_entries: int | None = None,
    magic: bytes = b"GGUF",
) -> bytes:
    counts = (len(rows) if num_tensors is None else num_tensors, len(entries) if num_entries is None else num_entries)
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(entries) + b"".join(rows)
    return head + bytes(-len(head) % 32) + data


HUGE = [2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]
TEXT, LIST = 8, 9
FILES = {
    "another magic": gguf(magic=b"GGML"),
    "version 0": gguf(version=0),
    "version 1": gguf(version=1),
    "version 4": gguf(version=4),
    "big-endian": gguf(version=3 << 24),
    **{f"{count} tensors": gguf(num_tensors=count) for count in [2, 1000, 65_537, *HUGE]},
    **{f"{count} entries": gguf(num_entries=count) for count in [5, 1000, 65_537, *HUGE]},
    **{f"a key of {size} bytes": gguf([struct.pack("<Q", size) + b"key"]) for size in [10**6, *HUGE]},
    **{f"a text of {size} bytes": gguf([entry("k", TEXT, struct.pack("<Q", size))]) for size in [10**6, *HUGE]},
    **{
        f"{count} items of type {kind}": gguf([entry("k", LIST, struct.pack("<IQ", kind, count))])
        for kind in (0, 4, TEXT, LIST, 12)
        for count in (1000, 2**40, 2**61, 2**64 - 1)
    },
    "a key that is not utf-8": gguf([entry(b"\xff\xfe", 0, b"\1")]),
    "a text that is not utf-8": gguf([entry("k", TEXT, string(b"\xc3\x28"))]),
    "an item that is not utf-8": gguf([entry("k", LIST, struct.pack("<IQ", TEXT, 1) + string(b"\xc3\x28"))]),
    "an item longer than the file": gguf([entry("k", LIST, struct.pack("<IQQ", TEXT, 1, 2**63))]),
    "an unknown type of value": gguf([entry("k", 13, b"")]),
    "a huge type of value": gguf([entry("k", 2**32 - 1, b"")]),
    "an unknown type of item": gguf([entry("k", LIST, struct.pack("<IQ", 13, 1))]),
    "lists in lists": gguf([entry("k", LIST, struct.pack("<IQ", LIST, 1) * 1000)]),
    "a key twice": gguf([entry("k", 0, b"\1"), entry("k", 0, b"\1")]),
    **{
        f"alignment {value}": gguf([entry("general.alignment", 4, struct.pack("<I", value))])
        for value in (0, 3, 33, 131_072, 2**31)
    },
    "alignment a text": gguf([entry("general.alignment", TEXT, string("32"))]),
    "alignment true": gguf([entry("general.alignment", 7, b"\1")]),
    "no dimensions": gguf(rows=[row(shape=())]),
    "five dimensions": gguf(rows=[row(shape=(1,) * 5)]),
    "a billion dimensions": gguf(rows=[row(dimensions=10**9)]),
    "a dimension of 0": gguf(rows=[row(shape=(8, 0))]),
    **{f"a dimension of {size}": gguf(rows=[row(shape=(8, size))]) for size in HUGE},
    "a product over 64 bits": gguf(rows=[row(shape=(2**39, 2**39, 2**39, 2**39))]),
    "a product that wraps to 0": gguf(rows=[row(shape=(2**32, 2**32))]),
    **{
        f"type {kind} of a tensor": gguf(rows=[row(shape=(256,), kind=kind)], data=bytes(2048))
        for kind in (4, 5, 10, 16, 31, 99, 2**31)
    },
    "a row of broken blocks": gguf(rows=[row(shape=(48, 2), kind=2)], data=bytes(512)),
    "a type that lies": gguf(rows=[row(shape=(64,), kind=0)], data=bytes(128)),
    "data cut short": gguf(rows=[row(shape=(32,))], data=bytes(127)),
    "an offset off the alignment": gguf(rows=[row(offset=4)]),
    **{f"an offset of {offset}": gguf(rows=[row(offset=offset)]) for offset in (64, 2**31, 2**63, 2**64 - 32)},
    "tensors that overlap": gguf(rows=[row("a", (16,)), row("b", (8,), offset=32)]),
    "two tensors on the same bytes": gguf(rows=[row("a"), row("b")]),
    "a tensor twice": gguf(rows=[row("a"), row("a", offset=32)]),
    "a tensor's name not utf-8": gguf(rows=[row(b"\xff")]),
    "a tensor's name of 70 kB": gguf(rows=[row("x" * 70_000)]),
    "no metadata": gguf(rows=[row()]),
    "nothing at all": gguf(),
}  # fmt: skip


@pytest.fixture
def hostile(tmp_path):
    def write(content: bytes) -> Path:
        (tmp_path / "hostile.gguf").write_bytes(content)
        return tmp_path / "hostile.gguf"

    return write


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config) -> bytes:
    from nano_llama.core.init import init_params

    config = tiny_config(tied=True, rope="llama3", hidden_size=96, intermediate_size=96, num_hidden_layers=1)
    words = {"tokenizer.ggml.tokens": [f"word{number}" for number in range(101)], "tokenizer.ggml.model": "gpt2"}
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    save_gguf(path, config, init_params(config), words, dtype="Q8_0")
    return path.read_bytes()


def test_the_maker_of_these_files_can_make_a_good_one(hostile):
    good = [entry("k", LIST, struct.pack("<IQ", TEXT, 2) + string("a") + string("b"))]
    file = GGUFFile(hostile(gguf(good, [row("a"), row("b", (2, 4), offset=32)])))
    assert file.metadata == {"k": ["a", "b"]}
    assert file.tensors["b"].shape == (4, 2)


@pytest.mark.parametrize("content", FILES.values(), ids=FILES.keys())
def test_a_strange_file(hostile, refuse, content):
    refuse(hostile(content))


@pytest.mark.parametrize("size", [0, 1, 4, 7, 8, 16, 23, 24, 25, 31])
def test_cut_in_the_header(hostile, refuse, model, size):
    refuse(hostile(model[:size]))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
def test_truncated_files_are_refused(hostile, refuse, model, share):
    refuse(hostile(model[: int(len(model) * share)]))


@pytest.mark.parametrize("step", range(60))
def test_one_flipped_bit_in_the_head(hostile, survive, model, step):
    damaged = bytearray(model)
    position = step * 4000 // 60  # metadata and tensor table take about 4,000 bytes
    damaged[position] ^= 1 << (step % 8)
    survive(hostile(bytes(damaged)))


LIES = {
    "more layers": ("llama.block_count", 9),
    "huge layers": ("llama.block_count", 2**31 - 1),
    "no layers": ("llama.block_count", 0),
    "a wider model": ("llama.embedding_length", 128),
    "a wider MLP": ("llama.feed_forward_length", 2**31 - 1),
    "more heads": ("llama.attention.head_count", 12),
    "no heads": ("llama.attention.head_count", 0),
    "heads per layer": ("llama.attention.head_count", [6, 6]),
    "an odd head": ("llama.attention.key_length", 15),
    "a huge head": ("llama.attention.key_length", 2**31),
    "a large number": ("llama.context_length", 2**40),
    "no epsilon": ("llama.attention.layer_norm_rms_epsilon", 0.0),
    "an epsilon that is none": ("llama.attention.layer_norm_rms_epsilon", float("nan")),
    "an endless theta": ("llama.rope.freq_base", float("inf")),
    "a negative theta": ("llama.rope.freq_base", -1.0),
    "another architecture": ("general.architecture", "gemma3"),
    "architecture a list": ("general.architecture", ["llama"]),
    "rope junk": ("nano_llama.rope_scaling", "{"),
    "rope of another kind": ("nano_llama.rope_scaling", '{"rope_type": "linear", "factor": 2}'),
    "rope a list": ("nano_llama.rope_scaling", "[1]"),
    "rope deep": ("nano_llama.rope_scaling", "[" * 100_000),
    "rope a number": ("nano_llama.rope_scaling", 3),
    "rope of other numbers": (
        "nano_llama.rope_scaling",
        '{"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 2,'
        ' "original_max_position_embeddings": 99}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_metadata_that_lies(tmp_path, hostile, refuse, model, lie):
    file = GGUFFile(hostile(model))
    metadata = {**file.metadata, lie[0]: lie[1]}
    plan = [
        PlannedTensor(name, info.kind, info.shape, lambda name=name: file.blocks(name))
        for name, info in file.tensors.items()
    ]
    write_gguf(tmp_path / "lie.gguf", metadata, plan)
    refuse(tmp_path / "lie.gguf")


@pytest.mark.parametrize(
    "name", ["token_embd.weight", "output_norm.weight", "blk.0.attn_q.weight", "blk.0.ffn_norm.weight"]
)
@pytest.mark.parametrize("change", ["missing", "transposed", "misnamed"])
def test_a_tensor_that_does_not_fit(tmp_path, hostile, refuse, model, name, change):
    file = GGUFFile(hostile(model))
    plan = []
    for own, info in file.tensors.items():
        shape = info.shape
        if own == name:
            if change == "missing":
                continue
            shape = (shape[0] * 32, shape[1] // 32) if change == "transposed" and len(shape) == 2 else shape
            shape = (shape[0] // 2, 2) if change == "transposed" and len(shape) == 1 else shape
            own = "blk.7.ffn_up.weight" if change == "misnamed" else own
            own_blocks = np.zeros(file.blocks(name).size, np.uint8)
            if change == "transposed" and info.kind == "Q8_0":
                own_blocks = np.zeros(shape[0] * shape[1] * 4, np.uint8)
            kind = "F32" if change == "transposed" else info.kind
            plan.append(PlannedTensor(own, kind, shape, lambda blocks=own_blocks: blocks))
            continue
        plan.append(PlannedTensor(own, info.kind, shape, lambda own=own: file.blocks(own)))
    write_gguf(tmp_path / "lie.gguf", file.metadata, plan)
    refuse(tmp_path / "lie.gguf")


@pytest.mark.parametrize("text", [b"", b"ab", "模".encode(), b"x" * 60], ids=["empty", "short", "wide", "long"])
def test_a_vocabulary_that_wants_much_memory(hostile, refuse, text):
    """As many strings as are read at all, then a cut: the strings alone must not break the limit."""
    count = MAX_STRINGS if len(text) < 60 else 10**6
    items = struct.pack("<IQ", TEXT, count) + string(text) * count
    refuse(hostile(gguf([entry("k", LIST, items)], num_entries=2, data=b"")))


def test_more_strings_than_are_read(hostile, refuse):
    items = struct.pack("<IQ", TEXT, MAX_STRINGS + 1) + string("") * (MAX_STRINGS + 1)
    refuse(hostile(gguf([entry("k", LIST, items)])), "more than")


def test_one_wide_letter_in_a_large_text(hostile, refuse):
    """Python keeps such a text at four bytes a letter."""
    refuse(
        hostile(
            gguf([entry("k", TEXT, string(b"x" * (MAX_STRING_BYTES - 100) + "🦙".encode()))], num_entries=2, data=b"")
        )
    )


def test_a_large_array_of_numbers(hostile, refuse):
    items = struct.pack("<IQ", 0, 10**8) + bytes(10**8)
    refuse(hostile(gguf([entry("k", LIST, items)], num_entries=2, data=b"")))
