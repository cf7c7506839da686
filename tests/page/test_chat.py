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


def asked(page, path, act):
    """The body of the request that this brings about."""
    with page.expect_request(f"**{path}") as sent:
        act()
    return sent.value.post_data_json


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


def test_an_answer_goes_on_to_its_end(chat):
    """And so does a branch, which is a completion, and must be told how many tokens there is room for."""
    page = chat.go(seed=7)
    body = asked(page, "/v1/chat/completions", lambda: say(page, "the fox"))
    assert "max_tokens" not in body and body["seed"] == 7
    whole = {"messages": body["messages"], "temperature": 0.8, "seed": 7, "return_token_ids": True}
    answer = chat.ask("/v1/chat/completions", whole)
    assert last_answer(page) == answer["choices"][0]["message"]["content"]
    page.locator(".token").nth(2).click()
    choice = page.locator("nl-alternatives tr:not(.chosen) button").first
    body = asked(page, "/v1/completions", choice.click)
    assert len(body["prompt"]) == answer["usage"]["prompt_tokens"] + 3
    assert body["max_tokens"] == chat.ask("/inspect/model")["context"] - len(body["prompt"])
    note = page.locator("nl-chat > .hint", has_text="that the branch began with")
    note.wait_for()
    texts = page.locator(".token").all_text_contents()
    chat.follow()
    note.wait_for()
    assert page.locator(".token").all_text_contents() == texts
    field = page.locator("nl-complete").get_by_label("tokens at most", exact=True)
    assert field.input_value() == "48", "a text that goes on has no end of its own"


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
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    chat.go(max_tokens=4)
    assert choice.locator("option").all_text_contents() == ["too lazy"]


def kept(page):
    """The texts that the browser keeps, a list for each conversation."""
    return page.evaluate("""() => JSON.parse(localStorage.getItem("nano-llama conversations") ?? "[]")
        .map(one => one.turns.map(turn => turn.text))""")


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def test_two_windows_keep_each_others_conversations(chat):
    page = chat.go(max_tokens=4)
    other = page.context.new_page()
    other.goto(f"http://127.0.0.1:{chat.port}/#max_tokens=4")
    say(page, "the fox")
    say(other, "too lazy")
    names = [window.get_by_label("Conversations").locator("option") for window in (page, other)]
    names[0].nth(1).wait_for(state="attached")
    assert [sorted(one.all_text_contents()) for one in names] == [["the fox", "too lazy"]] * 2
    say(page, "and the dog")
    assert sorted(len(texts) for texts in kept(page)) == [2, 4]
    other.once("dialog", lambda dialog: dialog.accept())
    button(other, "Delete").click()
    page.get_by_label("Conversations").locator("option", has_text="too lazy").wait_for(state="detached")
    assert [texts[0] for texts in kept(page)] == ["the fox"] and page.locator(".turns li").count() == 4


def test_a_full_storage(chat):
    page = chat.go(max_tokens=4)
    say(page, "the fox")
    page.evaluate("""() => {
        for (let text = "x".repeat(1 << 23); text; text = text.slice(text.length / 2 + 1)) {
            try { localStorage.filler = (localStorage.filler ?? "") + text; } catch { /* the next is shorter */ }
        }
    }""")
    say(page, "and the dog")
    warning = page.locator("nl-chat [role=alert]", has_text="no room")
    assert warning.is_visible() and [len(texts) for texts in kept(page)] == [2]
    assert page.locator(".turns li").count() == 4, "what cannot be kept is not lost yet"
    page.evaluate("localStorage.removeItem('filler')")
    say(page, "too lazy")
    assert warning.is_hidden() and [len(texts) for texts in kept(page)] == [6]


def test_a_server_that_goes_away(chat):
    """Before the answer, and in its middle: what was asked and what came stay, and both are written once it is back."""
    page = chat.go(max_tokens=4, seed=7)
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.locator("#message").fill("the fox")
    page.locator("#message").press("Enter")
    page.locator("nl-chat > .error", has_text="does not answer").wait_for()
    assert kept(page) == [["the fox"]]
    body = 'data: {"choices": [{"index": 0, "delta": {"content": "the"}, "token_ids": [1]}]}\n\n'
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    button(page, "Answer").click()
    page.locator("nl-chat > .error", has_text="cut off").wait_for()
    page.unroute("**/v1/chat/completions")
    button(page, "Answer" if button(page, "Answer").count() else "Regenerate").click()
    page.locator("nl-chat > .hint", has_text="tokens:").wait_for()
    assert page.locator(".turns li").count() == 2 and len(kept(page)[0]) == 2
    chat.faults.clear()  # the browser notes the failed requests


def test_turns_by_keyboard(chat):
    page = chat.go(max_tokens=4, seed=7)
    say(page, "the fox")
    button(page, "Edit").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Edit", "one is back where one was"
    page.keyboard.press("Enter")
    page.keyboard.type("the lazy dog and ")
    page.keyboard.press("Control+Enter")
    page.locator(".turns .user .text", has_text="the lazy dog and").wait_for()
    page.locator("nl-chat > .hint", has_text="tokens:").wait_for()
    button(page, "Edit").nth(1).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type("over the dog")
    page.keyboard.press("Control+Enter")
    page.locator(".turns .assistant .text", has_text="over the dog").wait_for()
    assert kept(page)[0][1] == "over the dog"
    say(page, "too lazy")
    button(page, "Regenerate").last.focus()
    page.keyboard.press("Enter")
    page.locator("nl-chat > .hint", has_text="tokens:").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Regenerate"
    page.locator("#message").focus()
    page.keyboard.press("Enter")
    assert page.locator(".turns li").count() == 4, "nothing is sent that nobody wrote"


def test_a_link_to_a_later_turn(chat):
    """It holds the conversation; and who reloads the page is in the conversation that is kept."""
    page = chat.go(max_tokens=6, seed=7)
    say(page, "the fox")
    first = last_answer(page)
    button(page, "Regenerate").click()
    page.locator("nl-chat > .hint", has_text="tokens:").wait_for()
    say(page, "and the dog")
    page.locator(".turns .assistant").last.locator(".token").nth(2).click()
    page.locator("nl-alternatives[data-at='2']").wait_for()
    address, texts = page.url, page.locator(".turns li").all_inner_texts()
    before = kept(page)
    assert first != before[0][1]

    def visit():
        page.goto("about:blank")
        page.goto(address)
        page.locator("nl-alternatives[data-at='2']").wait_for()
        return page.locator(".turns .assistant .tokens").last.inner_text()

    assert visit() in texts[-1] and kept(page) == before
    assert page.get_by_label("Conversations").locator("option").all_text_contents() == ["the fox"]
    page.evaluate("localStorage.clear()")
    assert visit() in texts[-1] and kept(page) == [], "somebody else's: kept once one goes on with it"
    say(page, "too lazy")
    assert [len(one) for one in kept(page)] == [6]


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
