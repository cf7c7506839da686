"""The image token: added to a tokenizer, kept in its files."""

import pytest

from nano_llama import Tokenizer
from nano_llama.core.errors import UserError
from nano_llama.tokenizer.image_token import image_token_id, with_image_token


@pytest.fixture(params=["bpe", "char"])
def plain(request):
    text = "what colour is the shape? a small <image> of red."
    return Tokenizer.train_bpe([text], 270) if request.param == "bpe" else Tokenizer.train_char(text)


def test_it_is_one_more_token(plain):
    assert image_token_id(plain) is None
    tokenizer = with_image_token(plain)
    number = plain.vocab_size
    assert image_token_id(tokenizer) == number and tokenizer.vocab_size == number + 1
    assert image_token_id(plain) is None and plain.vocab_size == number  # the other stays as it was
    text = "<image>what colour?"
    assert tokenizer.encode(text, parse_special=True) == [number, *plain.encode("what colour?")]
    assert tokenizer.encode(text) == plain.encode(text)  # typed, it is text
    assert tokenizer.decode([number, *plain.encode("red")]) == "red"


def test_its_files_say_so(plain, tmp_path):
    tokenizer = with_image_token(plain)
    tokenizer.save_pretrained(tmp_path)
    read = Tokenizer.from_pretrained(tmp_path)
    assert image_token_id(read) == image_token_id(tokenizer)
    assert (read.eos_id, read.vocab_size) == (tokenizer.eos_id, tokenizer.vocab_size)


def test_not_twice(plain):
    with pytest.raises(UserError, match="already has an image token"):
        with_image_token(with_image_token(plain))
