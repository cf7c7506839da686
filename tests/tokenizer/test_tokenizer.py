"""The Tokenizer's promises: exact round trips, special tokens never out of typed text, errors that name the cause."""

import pickle
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

from nano_llama.core.errors import UserError
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.backend import LONG, Backend
from nano_llama.tokenizer.roles import Roles

from .conftest import CORPUS, HARD_TEXTS

E = "<|endoftext|>"


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_byte_level_round_trip(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text


@settings(max_examples=400, deadline=None)
@given(text=st.text() | st.text(alphabet=st.sampled_from(" \n\r\t'a<|>endoftxt\u0301🙂\u200d"), max_size=60))
def test_byte_level_round_trip_of_any_text(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert b"".join(map(bpe.token_bytes, ids)) == text.encode()


def test_encoding_is_the_librarys(bpe):
    """The reference: the same tokenizer.json in the library, without anything of ours around it."""
    library = Library.from_str(bpe.backend.source)
    for text in [*HARD_TEXTS[:16], *CORPUS]:
        assert bpe.encode(text) == library.encode(text).ids
        assert bpe.decode(bpe.encode(text)) == library.decode(library.encode(text).ids)
    long = "".join(CORPUS) * (3 * LONG // len("".join(CORPUS)) + 1) + E
    assert len(long) > LONG and bpe.encode(long) == library.encode(long.removesuffix(E)).ids + bpe.encode(E)


def test_a_long_text_does_not_stop_other_threads(bpe):
    """The library's `encode` would: a server would answer nobody for as long as it takes."""
    text, turns = "1234567890" * 20_000, 0
    encoding = threading.Thread(target=bpe.encode, args=[text])
    encoding.start()
    while encoding.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 20


@pytest.mark.parametrize("text", [E, f"a{E}b", f"{E}{E}", f" {E}\n", "<|endoftext|><|endoftext"])
def test_typed_special_tokens_are_text_unless_asked_for(bpe, text):
    plain, parsed = bpe.encode(text), bpe.encode(text, parse_special=True)
    assert bpe.eos_id == 0 and 0 not in plain
    assert bpe.decode(plain) == text
    assert parsed.count(0) == text.count(E)
    assert bpe.decode(parsed) == text.replace(E, "")
    assert bpe.decode(parsed, skip_special=False) == text
    assert bpe.encode_batch([text, "b"]) == [plain, bpe.encode("b")]
    assert bpe.encode_batch([text], parse_special=True) == [parsed]


def test_parsing_once_does_not_change_plain_encoding(bpe):
    before = bpe.encode(E)
    bpe.encode(E, parse_special=True)
    assert bpe.encode(E) == before


def test_a_vocabulary_that_only_has_the_word_as_special_token_refuses():
    library = Library(models.WordLevel({"[UNK]": 0, "[END]": 1, "a": 2}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens(["[UNK]", "[END]"])
    tokenizer = Tokenizer(Backend(library))
    assert tokenizer.encode("a b") == [2, 0]  # an unknown word is not a typed special token
    with pytest.raises(UserError, match=r"\[END\]"):
        tokenizer.encode("a [END]")
    assert tokenizer.encode("a [END]", parse_special=True) == [2, 1]


def test_bos(bpe, llama3_folder):
    with pytest.raises(UserError, match="no BOS"):
        bpe.encode("a", add_bos=True)
    llama3 = Tokenizer.from_pretrained(llama3_folder)
    bare = llama3.encode("a", add_bos=False)
    assert llama3.encode("a") == llama3.encode("a", add_bos=True) == [llama3.bos_id, *bare]
    assert llama3.encode("") == [llama3.bos_id]
    assert llama3.encode_batch(["a", ""], add_bos=False) == [bare, []]


def test_ids_that_are_none(bpe):
    for wrong in (-1, 1.5, "a", None, [1]):
        with pytest.raises(UserError, match="token id"):
            bpe.decode([wrong])
    assert bpe.decode(np.array([5, 6])) == bpe.decode([5, 6])
    assert bpe.decode([5, bpe.vocab_size, 2**40]) == bpe.decode([5]) + "\ufffd\ufffd"  # an embedding may be padded


@pytest.mark.parametrize("wrong", [None, 3, b"bytes", ["a"]])
def test_what_is_no_text_is_refused(bpe, char, wrong):
    for tokenizer in (bpe, char):
        with pytest.raises(UserError, match="A text was expected"):
            tokenizer.encode(wrong)


def test_half_a_surrogate_pair_is_refused_with_its_place(bpe):
    with pytest.raises(UserError, match=r"U\+D83D, at position 2"):
        bpe.encode("ab\ud83d")
    with pytest.raises(UserError, match=r"U\+D83D, at position 2"):
        bpe.encode("ab\ud83d" + "x" * LONG)
    with pytest.raises(UserError, match=r"U\+DE00, at position 0"):
        bpe.encode_batch(["fine", "\ude00"])


def test_char_level(char):
    text = "".join(CORPUS)
    alphabet = sorted(set(text))
    assert char.kind == "char" and char.vocab_size == len(alphabet)
    assert char.encode(text) == [alphabet.index(letter) for letter in text]  # as nanoGPT numbers them
    assert char.encode(text) == Library.from_str(char.backend.source).encode(text).ids
    assert char.decode(char.encode(text)) == text
    assert (char.bos_id, char.eos_id, char.special_ids, char.stop_ids) == (None, None, frozenset(), frozenset())


def test_char_level_names_a_character_it_lacks(char):
    with pytest.raises(UserError) as caught:
        char.encode("the é\n€")
    for part in ("'€'", "U+20AC", "EURO SIGN", "position 6", f"{char.vocab_size} characters", "bpe:"):
        assert part in str(caught.value)


def test_a_byte_level_vocabulary_without_all_bytes_refuses_instead_of_dropping():
    library = Library(models.BPE({"a": 0, "b": 1, "ab": 2, "Ġ": 3}, [("a", "b")]))
    library.pre_tokenizer, library.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = Tokenizer(Backend(library))
    assert tokenizer.encode("ab a") == [2, 3, 0]
    assert library.encode("aéb").ids == [2], "the library drops what it does not know, and joins the rest"
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch(["a", text])):
        with pytest.raises(UserError, match=r"'é' \(U\+00E9, .* at position 1"):
            encode("aéb")


def test_properties(bpe):
    assert (bpe.kind, bpe.byte_level, bpe.vocab_size) == ("bpe", True, 420)
    assert (bpe.bos_id, bpe.pad_id, bpe.unk_id) == (None, None, None)
    assert bpe.special_ids == bpe.stop_ids == frozenset({0})
    assert repr(bpe) == "Tokenizer(bpe, 420 tokens, eos=0, chat=False)"


def test_fingerprint_and_pickling(bpe, char):
    copy = pickle.loads(pickle.dumps(bpe))
    assert copy.fingerprint == bpe.fingerprint != char.fingerprint
    assert copy.encode(CORPUS[0]) == bpe.encode(CORPUS[0])
    assert copy.roles == bpe.roles
    assert Tokenizer.train_bpe(CORPUS, 419).fingerprint != bpe.fingerprint


def test_padding_truncation_and_dropout_in_a_file_change_nothing(bpe):
    library = Library.from_str(bpe.backend.source)
    library.enable_padding(length=64)
    library.enable_truncation(3)
    library.model.dropout = 0.9
    assert Tokenizer(Backend(library)).encode(CORPUS[1]) == bpe.encode(CORPUS[1])


def test_stop_ids_gather_all_ends(bpe):
    library = Library.from_str(bpe.backend.source)
    library.add_special_tokens(["<|eot_id|>", "<|im_start|>"])
    tokenizer = Tokenizer(Backend(library), Roles(eos=0, declared_stops=(7, 99_999)))
    assert tokenizer.stop_ids == {0, 7, 420}  # EOS, one declared, one by its name; not one beyond the vocabulary
