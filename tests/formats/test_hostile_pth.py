"""Hostile and damaged .pth files: malicious pickles, zip bombs, lies about sizes. Each ends in our error."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from nano_llama.formats import save_pth

torch = pytest.importorskip("torch")

DIRECTORY, END = b"PK\x01\x02", b"PK\x05\x06"  # a directory's entry, and the archive's end


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("pth") / "m.pth"
    save_pth(path, {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float16)})
    return path.read_bytes()


@pytest.fixture
def hostile(tmp_path):
    def write(content: bytes) -> Path:
        (tmp_path / "hostile.pth").write_bytes(content)
        return tmp_path / "hostile.pth"

    return write


def archive(program: bytes, *, data: bytes = bytes(24), compress: str | None = None, **files: bytes) -> bytes:
    """A zip as torch.save lays it out, around a pickle of our choice."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in {
            "data.pkl": program,
            "byteorder": b"little",
            "data/0": data,
            "version": b"3\n",
            **files,
        }.items():
            method = zipfile.ZIP_DEFLATED if name == compress else zipfile.ZIP_STORED
            made.writestr(f"archive/{name}", content, compress_type=method)
    return buffer.getvalue()


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def global_call(module: str, name: str, protocol: int = 2) -> bytes:
    """The pickle of module.name("touch hacked"), without that module being needed here."""
    head = f"c{module}\n{name}\n".encode() if protocol < 4 else b"\x8c" + bytes([len(module)]) + module.encode()
    if protocol >= 4:
        head += b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93"
    return bytes([0x80, protocol]) + head + b"(X\x0c\x00\x00\x00touch hackedtR."


CALLS = [
    "os.system",
    "posix.system",
    "nt.system",
    "subprocess.Popen",
    "subprocess.check_output",
    "builtins.eval",
    "builtins.exec",
    "builtins.getattr",
    "builtins.bytearray",
    "builtins.open",
    "__builtin__.eval",
    "importlib.import_module",
    "runpy.run_path",
    "shutil.rmtree",
    "torch.load",
    "torch.hub.load",
    "torch.storage._load_from_bytes",
    "numpy.load",
    "torch._utils._rebuild_sparse_tensor",
    "_codecs.encode",
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch.jit.load",
    "webbrowser.open",
    "socket.socket",
    "pickle.loads",
    "torch.FloatStorage.x",
]


@pytest.mark.parametrize("function", CALLS)
def test_a_pickle_that_calls_a_function(hostile, refuse, tmp_path, function):
    module, name = function.rsplit(".", 1)
    refuse(hostile(archive(global_call(module, name))), f"{module}.{name}")
    assert not (tmp_path / "hacked").exists()


OPCODES = {
    "stack global": global_call("os", "system", protocol=4),
    "inst": b"(X\x02\x00\x00\x00lsios\nsystem\n.",
    "obj": b"(cos\nsystem\nX\x02\x00\x00\x00lso.",
    "extension": b"\x80\x02\x82\x01.",
    "new object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
}
JUNK = {
    "empty": b"",
    "no stop": b"\x80\x02}",
    "not a pickle": b"hello, world",
    "a long string that is not there": b"\x80\x02X\xff\xff\xff\x7f.",
    "a long number that is not there": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a future protocol": b"\x80\x63}.",
    "a memo never written": b"\x80\x02h\x07.",
    "an empty stack": b"\x80\x02a.",
    "a list": pickle.dumps([1, 2], protocol=2),
    "a number": pickle.dumps(3, protocol=2),
    "no tensors": pickle.dumps({"a": 1}, protocol=2),
    "numbers as names": pickle.dumps({1: 2}, protocol=2),
    "text for a tensor": pickle.dumps({"model": {"a": "hello"}}, protocol=2),
    "a config that is junk": pickle.dumps({"model": {}, "config": {"model_type": "bert"}}, protocol=2),
    "deep tuples": b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b".",
    "deep lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "many marks": b"\x80\x02" + b"(" * 450_000 + b".",
}


@pytest.mark.parametrize("program", [*OPCODES.values(), *JUNK.values()], ids=[*OPCODES, *JUNK])
def test_a_strange_pickle(hostile, refuse, program):
    refuse(hostile(archive(program)))


def tensor_of(*, kind="FloatStorage", key="0", count=6, offset=0, shape=(2, 3), strides=(3, 1), device="cpu") -> bytes:
    """The pickle of {"a": a tensor}, with any lie about it."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", getattr(torch, kind), key, device, count) if isinstance(obj, Storage) else None

    rebuild = torch._utils._rebuild_tensor_v2
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump({"a": Call(rebuild, Storage(), offset, shape, strides, False, OrderedDict())})
    return buffer.getvalue()


TENSORS = {
    "more numbers than stored": {"count": 600, "shape": (600,), "strides": (1,)},
    "a shape over the storage": {"shape": (20, 30), "strides": (30, 1)},
    "an offset over the storage": {"offset": 5},
    "a huge offset": {"offset": 2**62},
    "a negative offset": {"offset": -1},
    "negative strides": {"strides": (-3, 1)},
    "a negative shape": {"shape": (-2, 3)},
    "strides of 0 to a petabyte": {"shape": (2**40, 2**8), "strides": (0, 0)},
    "strides of 0 over 64 bits": {"shape": (2**62, 2**62), "strides": (0, 0)},
    "strides of the wrong length": {"strides": (1,)},
    "huge strides": {"strides": (2**61, 1)},
    "a huge storage": {"count": 2**60},
    "a negative storage": {"count": -1},
    "a storage that is not there": {"key": "7"},
    "a storage with a path": {"key": "../../../etc/passwd"},
    "a wider type": {"kind": "DoubleStorage"},
    "a shape of floats": {"shape": (2.0, 3.0)},
    "a shape of text": {"shape": "23"},
}


def test_the_maker_of_these_lies_can_tell_the_truth(hostile):
    from nano_llama.formats import open_weights

    assert open_weights(hostile(archive(tensor_of())))["a"].shape == (2, 3)


@pytest.mark.parametrize("lie", TENSORS.values(), ids=TENSORS.keys())
def test_a_tensor_that_lies(hostile, refuse, lie):
    refuse(hostile(archive(tensor_of(**lie))))


# -- the zip around it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_truncated(hostile, refuse, whole, share):
    refuse(hostile(whole[: int(len(whole) * share)]))


@pytest.mark.parametrize("name", ["data/0", "data.pkl", "version", "extra"])
def test_a_zip_bomb(hostile, refuse, name):
    """100 MB (of a pickle: 5 MB) of zeros in a file of 100 kB."""
    files = {"extra": bytes(10**8)} if name == "extra" else {}
    program = tensor_of() + (bytes(5 * 10**6) if name == "data.pkl" else b"")
    data = bytes(10**8) if name == "data/0" else bytes(24)
    files |= {"version": bytes(10**8)} if name == "version" else {}
    refuse(hostile(archive(program, data=data, compress=name, **files)), "compressed")


def test_nested_zips_stay_closed(hostile, refuse):
    bomb = archive(tensor_of(), data=bytes(10**7), compress="data/0")
    refuse(hostile(archive(bomb)))


def test_a_pickle_over_the_limit(hostile, refuse):
    refuse(hostile(archive(b"\x80\x02" + b"N0" * 600_000 + b"}.")), "data.pkl of")


def test_a_zip_of_something_else(hostile, refuse):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("letter.txt", "hello")
    refuse(hostile(buffer.getvalue()), "not torch's")


def test_two_pickles(hostile, refuse):
    refuse(hostile(archive(tensor_of(), **{"sub/data.pkl": b"."})), "data.pkl")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice(hostile, refuse):
    buffer = io.BytesIO(archive(tensor_of()))
    with zipfile.ZipFile(buffer, "a") as made:
        made.writestr("archive/data.pkl", global_call("os", "system"))
    refuse(hostile(buffer.getvalue()), "twice")


def test_too_many_files(hostile, refuse):
    refuse(hostile(archive(tensor_of(), **{f"data/x{number}": b"" for number in range(20_001)})))


def test_a_directory_that_wants_much_memory(hostile, refuse):
    """Half a million entries of 46 bytes, of each of which Python would make an object."""
    entry = DIRECTORY + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"x"
    directory = entry * 500_000
    end = END + struct.pack("<HHHHIIH", 0, 0, 65_535, 65_535, len(directory), 4, 0)
    refuse(hostile(b"PK\x03\x04" + directory + end), "zip directory claims")


def test_a_comment_after_the_end(hostile, refuse, whole):
    """Readers search for the end in different ways; ours accepts one that all agree on."""
    refuse(hostile(whole[:-2] + struct.pack("<H", 5) + b"hello"), "end of its zip")


def test_an_old_pickle(hostile, refuse):
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer, _use_new_zipfile_serialization=False)
    refuse(hostile(buffer.getvalue()), "before 1.6")


def patched(whole: bytes, signature: bytes, at: int, value: bytes, which: int = 0) -> bytes:
    """The file with bytes of its `which`-th record of a kind replaced."""
    start = -1
    for _ in range(which + 1):
        start = whole.index(signature, start + 1)
    return whole[: start + at] + value + whole[start + at + len(value) :]


PATCHES = {
    "a size over the file": (DIRECTORY, 24, struct.pack("<I", 10**9)),
    "both sizes over the file": (DIRECTORY, 20, struct.pack("<II", 10**9, 10**9)),
    "another compressed size": (DIRECTORY, 20, struct.pack("<I", 3)),
    "a method": (DIRECTORY, 10, struct.pack("<H", 8)),
    "an unknown method": (DIRECTORY, 10, struct.pack("<H", 77)),
    "an offset over the file": (DIRECTORY, 42, struct.pack("<I", 10**9)),
    "a name over the file": (DIRECTORY, 28, struct.pack("<H", 60_000)),
    "an extra field over the file": (DIRECTORY, 30, struct.pack("<H", 60_000)),
    "a directory of 4 GB": (END, 12, struct.pack("<I", 2**32 - 2)),
    "a directory elsewhere": (END, 16, struct.pack("<I", 7)),
    "a directory beyond the end": (END, 16, struct.pack("<I", 10**9)),
    "no directory": (END, 12, struct.pack("<I", 0)),
    "no such record": (DIRECTORY, 0, b"XXXX"),
}  # fmt: skip


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES.keys())
def test_a_damaged_directory(hostile, refuse, whole, patch):
    refuse(hostile(patched(whole, *patch)))


def test_entries_that_overlap(hostile, refuse, whole):
    """Two entries of the directory over the same bytes: how small files become large without compression."""
    first = whole.index(DIRECTORY)
    offset = whole[first + 42 : first + 46]
    refuse(hostile(patched(whole, DIRECTORY, 42, offset, which=2)), "overlaps")


@pytest.mark.parametrize("step", range(40))
def test_one_flipped_bit(hostile, survive, whole, step):
    damaged = bytearray(whole)
    position = step * len(whole) // 40
    damaged[position] ^= 1 << (step % 8)
    survive(hostile(bytes(damaged)))


@pytest.mark.parametrize("inside", ["a tensor", "a list of tensors", "itself", "a key that is no word"])
def test_a_config_that_is_not_plain_data(tmp_path, refuse, inside):
    config: dict = {"model_type": "llama"}
    tensor = torch.tensor([1, 2])
    key = 7 if inside == "a key that is no word" else "attention_bias"
    config[key] = {"a tensor": tensor, "a list of tensors": [tensor], "itself": config}.get(inside, False)
    torch.save({"model": {"a": torch.ones(2)}, "config": config}, tmp_path / "m.pth")
    refuse(tmp_path / "m.pth", "its config holds")
