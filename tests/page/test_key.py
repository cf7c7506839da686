"""A server with keys: the page asks for one, sends it in a header alone, and forgets it with its tab."""

import pytest

from helpers.api import bpe, random_llm
from helpers.page import a_window
from helpers.served import Served
from nano_llama.server.auth import digest_of

pytestmark = pytest.mark.page
KEY = "sk-of-this-test"


@pytest.fixture(scope="module")
def locked():
    with Served(load=lambda: random_llm(bpe(chat_template=None)), api_key_digests=(digest_of(KEY),)) as served:
        yield served


def enter(page, key):
    page.get_by_label("This server asks for an API key").fill(key)
    page.keyboard.press("Enter")


def test_the_key_is_asked_for(browser, locked):
    with a_window(browser, locked) as opened:
        page, asked = opened.page, []
        page.on("request", lambda request: asked.append(request))
        page.goto(f"http://127.0.0.1:{locked.port}/#prompt=the+quick&max_tokens=4&seed=7")
        page.locator("#unlock").wait_for()
        assert page.locator("#desk").is_hidden() and page.locator("#refused").text_content() == ""
        assert page.evaluate("document.activeElement.id") == "key"
        enter(page, "sk-another")
        page.locator("#refused", has_text="key").wait_for()
        assert page.locator("#desk").is_hidden()
        enter(page, KEY)
        page.locator("#desk").wait_for()
        assert page.locator("#unlock").is_hidden()
        page.get_by_role("button", name="Continue").click()
        page.locator("nl-river details").wait_for()
        page.locator(".token").first.click()
        page.locator("nl-alternatives tbody tr").first.wait_for()
        page.reload()
        page.locator("#desk").wait_for()
        assert KEY not in page.url and not [request for request in asked if KEY in request.url]
        assert not page.evaluate("Object.values(localStorage).some(text => text.includes('sk-'))")
        sent = [request for request in asked if "/v1/" in request.url or "/inspect/next" in request.url]
        assert sent and all(request.headers["authorization"] == f"Bearer {KEY}" for request in sent)
        another = page.context.new_page()
        another.goto(f"http://127.0.0.1:{locked.port}/")
        another.locator("#unlock").wait_for()
        assert all("status of 401" in fault for fault in opened.faults), opened.faults
        opened.faults.clear()  # the browser's own words
