"""Metadata for an export: back into the same tokenizer, written by the gguf library, read by llama.cpp."""

import json

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from nano_llama.core.errors import UserError
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.gguf import from_metadata, tokenizer_to_gguf

from .conftest import CORPUS, HARD_TEXTS

TEXTS = [*HARD_TEXTS, *CORPUS[:3]]


@pytest.fixture(scope="module")
def kinds(bpe, llama3_folder, sentencepiece_metadata, tmp_path_factory) -> dict[str, Tokenizer]:
    bare = sentencepiece_metadata | {"tokenizer.ggml.add_space_prefix": False}
    return {
        "bpe": bpe,
        "llama3": Tokenizer.from_pretrained(llama3_folder),
        "sentencepiece": Tokenizer(*from_metadata(sentencepiece_metadata)),
        "sentencepiece, no prefix": Tokenizer(*from_metadata(bare)),
    }


NAMES = ["bpe", "llama3", "sentencepiece", "sentencepiece, no prefix"]


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_through_gguf_metadata(kinds, name):
    tokenizer = kinds[name]
    again = Tokenizer(*from_metadata(tokenizer_to_gguf(tokenizer)))
    for text in TEXTS:
        for special in (False, True):
            assert again.encode(text, parse_special=special) == tokenizer.encode(text, parse_special=special)
    for role in ("bos_id", "eos_id", "pad_id", "unk_id", "vocab_size", "special_ids", "chat_template", "kind"):
        assert getattr(again, role) == getattr(tokenizer, role), role
    assert again.backend.document["model"]["merges"] == tokenizer.backend.document["model"]["merges"]


def test_smollm2_round_trip(smollm2):
    from nano_llama.formats.gguf_reader import GGUFFile

    metadata = tokenizer_to_gguf(Tokenizer.from_pretrained(smollm2))
    original = {key: value for key, value in GGUFFile(smollm2).metadata.items() if key.startswith("tokenizer.")}
    for key, value in original.items():
        if key not in ("tokenizer.ggml.add_space_prefix",):  # says nothing for byte-level BPE
            assert metadata[key] == (value.tolist() if hasattr(value, "tolist") else value), key


def test_names_of_pre_tokenizers(kinds):
    assert tokenizer_to_gguf(kinds["bpe"])["tokenizer.ggml.pre"] == "smollm"
    assert tokenizer_to_gguf(kinds["llama3"])["tokenizer.ggml.pre"] == "llama-bpe"


def test_the_vocabulary_is_padded_to_the_embedding(bpe):
    metadata = tokenizer_to_gguf(bpe, vocab_size=423)
    assert metadata["tokenizer.ggml.tokens"][420:] == ["[PAD420]", "[PAD421]", "[PAD422]"]
    assert metadata["tokenizer.ggml.token_type"][420:] == [5, 5, 5]
    assert Tokenizer(*from_metadata(metadata)).encode("[PAD420]") == bpe.encode("[PAD420]")


def test_what_gguf_cannot_hold_is_refused_by_name(char):
    with pytest.raises(UserError, match="'char'"):
        tokenizer_to_gguf(char)
    unigram = Library(models.Unigram([("a", -1.0)]))
    with pytest.raises(UserError, match="'unigram'"):
        tokenizer_to_gguf(Tokenizer(Backend(unigram)))


def test_a_cut_without_a_name_is_refused(bpe):
    library = Library.from_str(bpe.backend.source)
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(False)])
    with pytest.raises(UserError, match="Punctuation"):
        tokenizer_to_gguf(Tokenizer(Backend(library)))
    spaced = Library.from_str(bpe.backend.source)
    spaced.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(UserError, match="add_prefix_space"):
        tokenizer_to_gguf(Tokenizer(Backend(spaced)))


def write(path, metadata) -> None:
    """A GGUF file of a vocabulary alone, by the library that llama.cpp's converters use."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    for key, number in {
        "context_length": 64,
        "embedding_length": 8,
        "block_count": 1,
        "feed_forward_length": 8,
    }.items():
        writer.add_uint32(f"llama.{key}", number)
    writer.add_uint32("llama.attention.head_count", 1)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    for key, value in metadata.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


@pytest.mark.parametrize("name", NAMES)
def test_our_reader_takes_the_file(kinds, name, tmp_path):
    path = tmp_path / "vocabulary.gguf"
    write(path, tokenizer_to_gguf(kinds[name]))
    again = Tokenizer.from_pretrained(path)
    assert all(again.encode(text) == kinds[name].encode(text) for text in TEXTS)


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpp_gives_the_same_ids(kinds, name, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    path = tmp_path / "vocabulary.gguf"
    write(path, tokenizer_to_gguf(kinds[name]))
    model = llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)
    differ = []
    for text in TEXTS:
        for special in (False, True):
            ids = model.tokenize(text.encode(), add_bos=True, special=special)
            ours = kinds[name].encode(text, parse_special=special)
            if ids != ours:
                differ.append(json.dumps([text, special, ids, ours]))
    assert not differ, differ
