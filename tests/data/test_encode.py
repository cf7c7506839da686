"""The fast encoder gives exactly the tokenizer's own ids."""

import re
import unicodedata

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from nano_llama.core.errors import UserError
from nano_llama.data import encode
from nano_llama.data.encode import PieceEncoder, PlainEncoder, cut_text, is_settled, make_encoder
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.pretokenizers import RECIPES

ENGLISH = "It's the year 1984, isn't it? We'LL see; they've said 'so'.\n\n\tdef f(x):\n\t\treturn x**2  # 3.14\r\n" * 20
MIXED = (
    "Grüße aus Köln – “naïve” café… 世界、こんにちは。Привет, мир! שלום ½ ² Ⅷ ٣٤ 😀 "
    "\u00a0x\u2003y\u3000z\u0085 e\u0301 ǅ ſt 'ſ"
)

# The characters that the cutting expressions treat differently, and neighbours.
ALPHABET = "ab sStTlLvVerREdDmM'’019½²Ⅷ٣äßſ世 \t\n\r\x0b\x1c\x85\u00a0\u2028\u3000.,!-_😀\U0001f9ff\U00020000\u0301<|>"


def bpe(recipe: str) -> Tokenizer:
    """A small BPE that cuts text like the named family."""
    trained = Tokenizer.train_bpe([ENGLISH, MIXED], 400).backend
    library = tokenizers.Tokenizer.from_str(trained.source)
    library.pre_tokenizer = RECIPES[recipe].build()
    library.model.ignore_merges = RECIPES[recipe].ignore_merges
    return Tokenizer(Backend(library))


FAMILIES = ["gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2"]


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request) -> Tokenizer:
    return bpe(request.param)


def agree(tokenizer: Tokenizer, texts: list[str], fast=None) -> None:
    fast = fast or make_encoder(tokenizer)
    for text, ids in zip(texts, fast(texts), strict=True):
        assert ids.tolist() == tokenizer.encode(text, add_bos=False), repr(text)


def test_known_families_are_fast(tokenizer):
    assert isinstance(make_encoder(tokenizer), PieceEncoder)
    agree(tokenizer, [ENGLISH, MIXED, "", " ", "a", "\n\n ", ENGLISH])


def test_any_text(tokenizer):
    fast = make_encoder(tokenizer)

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.text(ALPHABET, max_size=40) | st.text(max_size=30), max_size=4))
    def check(texts: list[str]) -> None:
        agree(tokenizer, [text.encode("utf-8", "replace").decode() for text in texts], fast)

    check()


def test_real_code_and_special_tokens_typed_by_someone(tokenizer):
    source = (encode.__file__, unicodedata.__doc__ or "")[0]
    with open(source, encoding="utf-8") as file:  # noqa: PTH123
        agree(tokenizer, [file.read(), "<|endoftext|> is <|endoftext|>text"])


def test_every_settled_character_is_cut_as_the_library_cuts_it():
    """All of Unicode (of private use a part), in surroundings that tell letters, numbers and spaces apart."""
    tokenizer = bpe("gpt-2")
    pattern = re.compile(encode.piece_pattern(tokenizer.backend.document))
    cut = tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"), "isolated"
    )
    codes = [*range(0xD800), *range(0xE000, 0xE100), *range(0xF900, 0x20000), *range(0x20000, 0x110000, 997)]
    settled = [chr(code) for code in codes if is_settled(chr(code))]
    assert len(settled) > 50_000
    for first in range(0, len(settled), 5000):
        text = "".join(f"a{c}a1{c}1 {c} !{c}!\n" for c in settled[first : first + 5000])
        assert pattern.findall(text) == [piece for piece, _ in cut.pre_tokenize_str(text)]


def test_unsettled_characters_go_the_plain_way():
    tokenizer = bpe("gpt-2")
    fast = make_encoder(tokenizer)
    young = "a\U0001e030b \u1c89x"  # letters of Unicode 15 and 16
    agree(tokenizer, [young, "a" + young], fast)
    assert not any(young[1] in piece for piece in fast.known)


def test_tokens_that_were_added_and_are_not_special():
    tokenizer = bpe("smollm")
    library = tokenizers.Tokenizer.from_str(tokenizer.backend.source)
    library.add_tokens(["two words", tokenizers.AddedToken("mark", special=False)])
    agree(Tokenizer(Backend(library)), ["here are two words.", "bookmarks", "nothing", "two  words"])


def test_other_tokenizers_go_the_plain_way():
    library = tokenizers.Tokenizer.from_str(bpe("gpt-2").backend.source)
    library.normalizer = tokenizers.normalizers.Lowercase()
    lower = Tokenizer(Backend(library))
    assert isinstance(make_encoder(lower), PlainEncoder)
    agree(lower, [ENGLISH, MIXED])
    assert isinstance(make_encoder(bpe("default")), PlainEncoder)
    agree(bpe("default"), [ENGLISH, MIXED])


def test_char_level_and_a_character_it_lacks():
    tokenizer = Tokenizer.train_char("hello wörld\n😀")
    agree(tokenizer, ["world", "", "ö\n😀", "hello" * 1000])
    with pytest.raises(UserError, match=r"'z' \(U\+007A"):
        make_encoder(tokenizer)(["hello", "z"])


def test_a_full_table_is_cleared(monkeypatch):
    monkeypatch.setattr(encode, "MAX_KNOWN_PIECES", 50)
    monkeypatch.setattr(encode, "GROUP_CHARACTERS", 200)
    tokenizer = bpe("smollm")
    agree(tokenizer, [f"{ENGLISH[i : i + 90]} word{i}" for i in range(0, 1800, 30)])


def test_ids_have_the_width_of_the_vocabulary():
    assert make_encoder(Tokenizer.train_char("ab"))(["ab"])[0].dtype == np.dtype("<u2")


@settings(max_examples=200, deadline=None)
@given(st.text("ab \n.é", max_size=300), st.integers(1, 50))
def test_parts_are_the_whole_and_not_too_long(text, size):
    parts = cut_text(text, size)
    assert "".join(parts) == text
    assert all(len(part) <= size for part in parts)


@pytest.mark.parametrize("family", [*FAMILIES, "default", "gpt-4o", "tekken"])
def test_ids_of_parts_are_the_ids_of_the_whole(family):
    tokenizer = bpe(family)
    text = ENGLISH + MIXED + ENGLISH
    for size in (400, 777):
        parts = cut_text(text, size)
        assert len(parts) > 4
        joined = [token for part in parts for token in tokenizer.encode(part, add_bos=False)]
        assert joined == tokenizer.encode(text, add_bos=False)
