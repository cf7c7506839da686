"""Split GGUF files, written by the gguf library: all parts open by the first, and every other way says what to do."""

import shutil
import warnings

import numpy as np
import pytest

from nano_llama.core.errors import FormatError
from nano_llama.formats import describe, open_weights, read_config, save_gguf
from nano_llama.formats.gguf_split import open_gguf, part_names
from nano_llama.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf")
PARTS = 3


@pytest.fixture
def model(tiny_config, random_weights):
    config = tiny_config(tied=True, initializer_range=0.02)
    return config, random_weights(config)


@pytest.fixture
def split(tmp_path, model):
    """The model in parts, split by the gguf library's own writer; returns the paths."""
    config, weights = model
    words = ["<unk>", "<s>", "</s>"]
    words += [f"w{number}" for number in range(config.vocab_size - len(words))]
    tokens = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": words}
    save_gguf(tmp_path / "whole.gguf", config, weights, tokenizer=tokens, dtype="F32")
    whole = gguf.GGUFReader(tmp_path / "whole.gguf")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=-(-len(whole.tensors) // PARTS))
    for field in whole.fields.values():
        if field.name.startswith(("llama.", "tokenizer.")):
            sub = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub)
    for tensor in whole.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file(tmp_path / "m.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    paths = sorted(tmp_path.glob("m-*.gguf"))
    assert [path.name for path in paths] == part_names(paths[0].name)
    assert len(paths) == PARTS
    return paths


def test_the_first_part_opens_all(split, model, same_tensors):
    config, weights = model
    assert read_config(split[0]) == config
    with open_weights(split[0]) as opened:
        same_tensors(opened, weights)
        opened.release_pages()
        same_tensors(opened, weights)
    assert describe(split[0])["parameters"] == config.num_parameters


def test_a_split_model_is_copied_as_one(split, model, tmp_path, same_tensors):
    config, weights = model
    with open_weights(split[0]) as opened:
        save_gguf(tmp_path / "joined.gguf", config, opened, dtype="keep")
    same_tensors(open_weights(tmp_path / "joined.gguf"), weights)


def test_its_tokenizer_is_read_from_the_first_part(split, model):
    assert Tokenizer.from_pretrained(split[0]).vocab_size == model[0].vocab_size
    with pytest.raises(FormatError, match="part 3 of 3"):
        Tokenizer.from_pretrained(split[2])


@pytest.mark.parametrize("opener", [open_weights, read_config])
def test_another_part_points_to_the_first(split, opener):
    with pytest.raises(FormatError, match="part 2 of 3") as caught:
        opener(split[1])
    assert str(split[0]) in caught.value.hint
    split[0].unlink()
    with pytest.raises(FormatError, match="part 2 of 3") as caught:
        opener(split[1])
    assert str(split[0]) not in caught.value.hint


def test_missing_parts_are_named(split):
    split[2].unlink()
    with pytest.raises(FormatError, match=r"1 are missing: m-00003-of-00003\.gguf"):
        open_weights(split[0])


def test_a_renamed_first_part_says_how_parts_are_called(split):
    split[0].rename(split[0].with_name("model.gguf"))
    with pytest.raises(FormatError, match="its name does not say so") as caught:
        open_weights(split[0].with_name("model.gguf"))
    assert "00001-of-00003" in caught.value.hint


def test_parts_that_are_swapped_or_twice_are_refused(split):
    aside = split[1].with_name("aside")
    split[1].rename(aside)
    shutil.copy(split[2], split[1])
    with pytest.raises(FormatError, match="is not part 2 of 3"):
        open_weights(split[0])


def change(path, key, value):
    """Rewrite a part's integer in place."""
    reader = gguf.GGUFReader(path, "r+")
    reader.fields[key].parts[reader.fields[key].data[0]][0] = value
    reader.data.flush()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("split.tensors.count", 99, "promised"),
        ("split.count", 2, "name does not say"),
        ("split.count", 60_000, "part 1 of 60000"),
        ("split.no", 7, "part 8 of 3"),
    ],
)
def test_numbers_that_do_not_agree_are_refused(split, key, value, words):
    change(split[0], key, value)
    with pytest.raises(FormatError, match=words):
        open_gguf(split[0])


def test_a_file_of_one_part_is_whole(tmp_path, model, same_tensors):
    config, weights = model
    save_gguf(tmp_path / "a.gguf", config, weights, dtype="F32")
    file = open_gguf(tmp_path / "a.gguf")
    assert type(file).__name__ == "GGUFFile"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same_tensors(open_weights(tmp_path / "a.gguf"), weights)


@pytest.mark.parametrize("name", ["m.gguf", "m-1-of-3.gguf", "m-00000-of-00003.gguf", "m-00004-of-00003.gguf"])
def test_no_part_names(name):
    assert part_names(name) is None


def test_the_tensor_of_two_parts_is_refused(split):
    """A part whose tensor also stands in the first: made by giving one tensor the name of another of equal length."""
    first = open_gguf(split[0])
    names = sorted(first._parts[0].tensors), sorted(first._parts[1].tensors)
    one, two = next((a, b) for a in names[0] for b in names[1] if len(a) == len(b))
    first.close()
    data = split[1].read_bytes()
    split[1].write_bytes(data.replace(two.encode(), one.encode(), 1))
    with pytest.raises(FormatError, match="is also in"):
        open_gguf(split[0])
    assert np.frombuffer(data[:4], np.uint8).tobytes() == b"GGUF"
