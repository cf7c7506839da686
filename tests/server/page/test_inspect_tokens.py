"""/inspect/tokens (nano_llama/server/inspection/tokens.py): the ids, bytes and merges that the model reads."""

import pytest

from helpers.api import bpe, post, random_llm, served

HI = [{"role": "user", "content": "Hi 🙂"}]
MARKED = "{% for message in messages %}<|endoftext|>{{ message.content }}\n{% endfor %}"
PATH = "/inspect/tokens"


def joined(answer) -> bytes:
    return b"".join(bytes(token["bytes"]) for token in answer["tokens"])


@pytest.mark.parametrize("text", ["the quick", "naïve 漢字 🙂", " \n\t<|endoftext|>", ""])
def test_a_text_is_read_as_completions_read_it(client, text):
    answer = post(client, PATH, prompt=text)
    ids = [token["id"] for token in answer["tokens"]]
    assert ids == bpe().encode(text) and answer["count"] == len(ids)
    assert answer["text"] == text and joined(answer) == text.encode()
    for token in answer["tokens"]:
        piece = text.encode()[token["start"] : token["end"]]
        assert piece == bytes(token["bytes"])
        assert token["text"] == (piece.decode() if "\ufffd" not in piece.decode(errors="replace") else None)


def test_a_conversation_is_read_as_chats_read_it(client):
    tokenizer = bpe()
    answer = post(client, PATH, messages=HI)
    assert [token["id"] for token in answer["tokens"]] == tokenizer.encode_chat(HI)
    assert answer["text"] == tokenizer.apply_chat_template(HI)
    open_end = post(client, PATH, messages=HI, add_generation_prompt=False)
    assert [token["id"] for token in open_end["tokens"]] == tokenizer.encode_chat(HI, add_generation_prompt=False)


def test_the_template_s_special_tokens_and_those_that_somebody_typed():
    with served(random_llm(bpe(chat_template=MARKED))) as client:
        answer = post(client, PATH, messages=[{"role": "user", "content": "a<|endoftext|>b"}])
    assert answer["text"] == "<|endoftext|>a<|endoftext|>b\n"
    first, *others = answer["tokens"]
    assert (first["special"], first["injected"], first["text"]) == (True, False, "<|endoftext|>")
    assert not any(token["special"] for token in others), "what was typed is text"
    injected = [token for token in others if token["injected"]]
    assert len(injected) > 1 and b"".join(bytes(token["bytes"]) for token in injected) == b"<|endoftext|>"
    assert not others[0]["injected"] and not others[-1]["injected"]


def test_a_typed_special_token_in_a_prompt(client):
    answer = post(client, PATH, prompt="x<|endoftext|>y")
    assert not answer["tokens"][0]["injected"]
    assert sum(token["injected"] for token in answer["tokens"]) == answer["count"] - 2
    assert not any(token["special"] for token in answer["tokens"])


def test_ids(client):
    answer = post(client, PATH, tokens=[0, 70, 299, 10_000])
    assert [token["special"] for token in answer["tokens"]] == [True, False, False, False]
    assert answer["tokens"][3]["text"] == "\ufffd", "an id that the vocabulary lacks"


def test_merges_lead_from_bytes_to_the_token(client):
    answer = post(client, PATH, prompt="the quick brown 漢字")
    merged = [token for token in answer["tokens"] if token["merges"]]
    assert merged, "some token has more than one byte"
    for token in merged:
        assert len(token["merges"]) == len(token["bytes"]) - 1
        last = token["merges"][-1]
        if token["text"] is not None and "\\x" not in last["left"] + last["right"]:
            assert last["left"] + last["right"] == token["text"]
    assert all(token["merges"] == [] for token in answer["tokens"] if len(token["bytes"]) == 1)
    assert post(client, PATH, tokens=[0])["tokens"][0]["merges"] is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "tokens": [1]}, "prompt"),
        ({"prompt": "a", "add_generation_prompt": True}, "add_generation_prompt"),
        ({"tokens": []}, "tokens"),
        ({"tokens": [1] * 3000}, "tokens"),
        ({"prompt": "漢" * 3000}, "prompt"),
        ({"prompt": "a", "parse_special": True}, "parse_special"),
    ],
)
def test_what_is_refused(client, body, param):
    assert post(client, PATH, 400, **body)["error"]["param"] == param
