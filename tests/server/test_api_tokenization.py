"""/tokenize, /detokenize and /tokenizer_info (tokenization.py) against the tokenizer itself."""

import pytest

from helpers.api import bpe, post

HI = [{"role": "user", "content": "Hi 🙂"}]


@pytest.fixture(scope="module")
def tokenizer():
    return bpe()


@pytest.mark.parametrize("text", ["", "the quick", "naïve 漢字 🙂", " \n\t"])
def test_there_and_back(client, tokenizer, text):
    answer = post(client, "/tokenize", prompt=text)
    ids = tokenizer.encode(text)
    assert answer == {"count": len(ids), "max_model_len": 256, "tokens": ids, "token_strs": None}
    assert post(client, "/detokenize", tokens=ids) == {"prompt": text}


def test_special_tokens_are_read_unless_that_is_switched_off(client, tokenizer):
    """vLLM's endpoint reads them; /v1/completions does not."""
    assert post(client, "/tokenize", prompt="a<|endoftext|>")["tokens"][-1] == tokenizer.eos_id
    assert post(client, "/tokenize", prompt="a<|endoftext|>", parse_special=False)["count"] > 5
    assert post(client, "/detokenize", tokens=[0]) == {"prompt": "<|endoftext|>"}


def test_a_conversation(client, tokenizer):
    assert post(client, "/tokenize", messages=HI)["tokens"] == tokenizer.encode_chat(HI)
    open_end = post(client, "/tokenize", messages=HI, add_generation_prompt=False)["tokens"]
    assert open_end == tokenizer.encode_chat(HI, add_generation_prompt=False)


def test_tokens_by_their_names(client, tokenizer):
    answer = post(client, "/tokenize", prompt="the 漢", return_token_strs=True)
    assert len(answer["token_strs"]) == answer["count"]
    assert answer["token_strs"][:2] == [tokenizer.decode([token]) for token in answer["tokens"][:2]]


def test_tokenizer_info(client, tokenizer):
    info = client.get("/tokenizer_info").json()
    assert info["eos_token"] == "<|endoftext|>" and info["eos_token_id"] == tokenizer.eos_id
    assert info["bos_token"] is None and info["chat_template"] == tokenizer.chat_template
    assert (info["vocab_size"], info["model_max_length"]) == (tokenizer.vocab_size, 256)
