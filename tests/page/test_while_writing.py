"""A token is opened while its text is still written and others decode: the view comes at once, and stays as it is."""

import time

import pytest

from helpers.api import bpe
from helpers.page import a_window
from helpers.served import GatedRunner, Served
from nano_llama import LLM

pytestmark = pytest.mark.page
ENTERED = "nl-alternatives button:focus"


class SlowRunner(GatedRunner):
    def execute(self, batch):
        time.sleep(0.05)
        return super().execute(batch)


@pytest.fixture
def busy(browser):
    """A page whose text is written beside two others, and none of them comes to its end."""
    tokenizer = bpe(257, chat_template=None)
    runner = SlowRunner(vocab_size=tokenizer.vocab_size, max_position_embeddings=1024)
    runner.allow()
    with Served(runner, load=lambda: LLM.from_runner(runner, tokenizer, max_num_seqs=8)) as served:
        for _ in range(2):
            served.start("/v1/completions", {"prompt": "x", "max_tokens": 900, "ignore_eos": True, "stream": True})
        with a_window(browser, served) as opened:
            page = opened.go(prompt="the quick brown", max_tokens=900)
            page.locator("#prompt").press("Control+Enter")
            page.locator(".token").nth(2).wait_for()
            yield page


def open_by_key(page, at):
    page.locator(".token").nth(at).focus()
    page.keyboard.press("Enter")
    page.locator(f"nl-alternatives[data-at='{at}']").wait_for()


def test_it_opens_at_once_and_stays(busy):
    open_by_key(busy, 2)
    busy.locator(ENTERED).wait_for()
    busy.evaluate("window.entered = document.activeElement")
    tokens = busy.locator(".token").count()
    busy.locator(".token").nth(tokens + 2).wait_for()
    assert busy.get_by_role("button", name="Stop", exact=True).is_visible(), "it is still written"
    busy.keyboard.press("Escape")
    busy.locator("nl-complete .hint", has_text="stopped by you").wait_for()
    assert busy.evaluate("document.activeElement === window.entered"), "what was open is not drawn anew"
    assert busy.locator(".token[aria-selected=true]").get_attribute("data-at") == "2"


def test_the_next_one_takes_the_keyboard_along(busy):
    """To its own view; but not from where somebody has gone meanwhile."""
    open_by_key(busy, 0)
    busy.locator(ENTERED).wait_for()
    open_by_key(busy, 1)
    busy.locator(ENTERED).wait_for()
    busy.locator(".token").nth(2).focus()
    busy.keyboard.press("Enter")
    busy.locator("#prompt").focus()
    busy.locator("nl-alternatives[data-at='2']").wait_for()
    busy.wait_for_timeout(200)  # longer than a view looks for its first button
    assert busy.evaluate("document.activeElement.id") == "prompt"


def test_nothing_is_asked_anew_for_each_token(busy):
    busy.locator("#tab-reads").click()
    busy.locator("nl-reads .piece").first.wait_for()
    asked, tokens = [], busy.locator(".token").count()
    busy.on("request", lambda sent: asked.append(sent.url))
    busy.locator(".token").nth(tokens + 3).wait_for()
    assert not asked


def test_another_view_opens_meanwhile(busy):
    open_by_key(busy, 1)
    busy.locator("#tab-why").click()
    busy.locator("nl-why .steps[data-by=server]").wait_for()
    assert busy.get_by_role("button", name="Stop", exact=True).is_visible(), "it is still written"
