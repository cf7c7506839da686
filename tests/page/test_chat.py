"""The chat: what is sent is the conversation as it stands; turns are edited and written anew, kept and exported."""

import re

import pytest

from helpers.api import bpe
from helpers.page import a_window
from helpers.served import GatedRunner, Served
from nano_llama import LLM

pytestmark = pytest.mark.page


def say(page, text):
    page.locator("#message").fill(text)
    page.locator("#message").press("Enter")
    page.locator("nl-chat > .hint", has_text="tokens:").wait_for()


def answer_of(opened, messages, **changes):
    body = {"messages": messages, "max_tokens": 6, "temperature": 0.8, "seed": 7, **changes}
    return opened.ask("/v1/chat/completions", body)["choices"][0]["message"]["content"]


def last_answer(page):
    """Through the clipboard's place: the text itself, not its pieces."""
    return page.evaluate("document.querySelector('nl-chat').open.turns.at(-1).text")


def test_a_conversation(chat):
    page = chat.go(max_tokens=6, seed=7)
    assert page.locator("#panel-chat").is_visible(), "a model with a template opens with the chat"
    page.locator("#panel-chat .sampling summary").click()
    page.locator("#system").fill("the dog")
    say(page, "the fox")
    messages = [{"role": "system", "content": "the dog"}, {"role": "user", "content": "the fox"}]
    first = last_answer(page)
    assert first == answer_of(chat, messages)
    say(page, "and the dog")
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "and the dog"}]
    assert last_answer(page) == answer_of(chat, messages)

    page.get_by_role("button", name="Regenerate").first.click()
    page.locator("nl-chat > .hint", has_text="tokens:").wait_for()
    assert page.locator(".turns li").count() == 2, "what came after an answer that is written anew is gone"
    assert last_answer(page) == answer_of(chat, messages[:2], seed=8)

    page.get_by_role("button", name="Edit").first.click()
    page.get_by_label("Edit this message").fill("the lazy dog")
    page.get_by_role("button", name="Send again").click()
    page.locator(".turns .text", has_text="the lazy dog").wait_for()
    page.locator("nl-chat > .hint", has_text="tokens:").wait_for()
    assert last_answer(page) == answer_of(chat, [messages[0], {"role": "user", "content": "the lazy dog"}], seed=8)

    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Export").click()
    assert re.search(r"\*\*system\*\*\n\nthe dog\n\n\*\*user\*\*\n\nthe lazy dog", downloaded.value.path().read_text())


def test_conversations_are_kept_in_this_browser(chat):
    page = chat.go(max_tokens=4)
    say(page, "the fox")
    page.get_by_role("button", name="New", exact=True).click()
    assert page.locator(".turns li").count() == 0
    say(page, "too lazy")
    chat.go(max_tokens=4)
    choice = page.get_by_label("Conversations")
    assert choice.locator("option").all_text_contents() == ["too lazy", "the fox"]
    choice.select_option(label="the fox")
    assert page.locator(".turns .user .text").all_text_contents() == ["the fox"]
    page.get_by_role("button", name="Delete").click()
    chat.go(max_tokens=4)
    assert choice.locator("option").all_text_contents() == ["too lazy"]


def test_damaged_storage_is_left_out(chat):
    page = chat.go()
    for kept in ("{", '[{"id": 1}]', '[null, {"id": "a", "system": "", "turns": [{"role": "<b>", "text": 1}]}]'):
        page.evaluate("kept => localStorage.setItem('nano-llama conversations', kept)", kept)
        chat.go()
        assert page.locator("#message").is_visible() and page.locator(".turns li").count() == 0


def test_stop(browser):
    """A model whose steps the test lets run: the fourth token never comes, since nobody waits for it any more."""
    tokenizer = bpe(257)
    runner = GatedRunner(vocab_size=tokenizer.vocab_size, max_position_embeddings=1024)
    with (
        Served(runner, load=lambda: LLM.from_runner(runner, tokenizer)) as served,
        a_window(browser, served) as chat,
    ):
        page = chat.go(max_tokens=240)
        page.locator("#message").fill("the fox")
        page.locator("#message").press("Enter")
        runner.allow(4)
        page.locator(".token").first.wait_for()
        page.get_by_role("button", name="Stop").click()
        page.locator("nl-chat > .hint", has_text="stopped by you").wait_for()
        assert 0 < page.locator(".token").count() < 5
        page.get_by_role("button", name="Send", exact=True).wait_for()
        runner.allow()


def test_an_error_is_said_in_the_servers_words(chat):
    page = chat.go(max_tokens=300)
    page.locator("#message").fill("the fox")
    page.locator("#message").press("Enter")
    page.locator("nl-chat > .error", has_text="context").wait_for()
    assert page.locator(".turns .assistant").count() == 0
    chat.faults.clear()  # the browser notes the status 400


def test_the_template_is_seen(chat):
    page = chat.go(mode="chat", view="reads")
    page.locator("#message").fill("the fox")
    page.locator("nl-reads .piece").first.wait_for()
    answer = chat.ask("/inspect/tokens", {"messages": [{"role": "user", "content": "the fox"}]})
    assert page.locator("nl-reads .piece small").all_text_contents() == [str(token["id"]) for token in answer["tokens"]]
