"""On a phone what is looked at is a sheet over the text's lower part: opened by a token or a tab, put away again."""

import pytest

from helpers.page import a_window

pytestmark = pytest.mark.page
STATE = {"prompt": "the quick brown", "run": 1, "max_tokens": 12, "seed": 7}
PHONE = {"width": 360, "height": 740}


def edges(page):
    box = page.locator("#looking").bounding_box()
    return box["y"], box["y"] + box["height"]


def test_a_sheet_on_a_phone(browser, server):
    with a_window(browser, server, viewport=PHONE, has_touch=True) as opened:
        page = opened.go(**STATE)
        handle = page.locator("#sheet")
        assert handle.get_attribute("aria-expanded") == "false" and page.locator("#views").is_hidden()
        top, bottom = edges(page)
        assert bottom == PHONE["height"] and bottom - top < 110, "it shows its tabs alone"
        token = page.locator(".token").nth(4)
        token.tap()
        page.locator("nl-alternatives tbody tr").first.wait_for()
        top, bottom = edges(page)
        assert handle.get_attribute("aria-expanded") == "true" and bottom == PHONE["height"]
        assert PHONE["height"] / 3 < top, "the text can still be read"
        box = token.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= top, "the token that was opened lies above it"
        page.keyboard.press("Escape")
        assert page.locator("#views").is_hidden()
        page.locator("#tab-why").click()
        page.locator("nl-why .strip").first.wait_for()
        handle.click()
        assert page.locator("#views").is_hidden()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        box = page.locator("nl-complete .hint").last.bounding_box()
        assert box["y"] + box["height"] <= edges(page)[0], "nothing of the text stays under it"


def test_a_wide_screen_has_none(opened):
    page = opened.go(**STATE)
    assert page.locator("#sheet").is_hidden() and page.locator("#views").is_visible()
