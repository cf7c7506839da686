"""The page in a browser: the system's Chromium, run by Playwright; and the server that it is opened on."""

import shutil

import pytest

from helpers.api import bpe, random_llm
from helpers.page import a_window
from helpers.served import Served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="the extra `judges` is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server():
    """A tiny random model that only continues texts."""
    with Served(load=lambda: random_llm(bpe(chat_template=None))) as served:
        yield served


@pytest.fixture(scope="session")
def chat_server():
    """One with a chat template."""
    with Served(load=random_llm) as served:
        yield served


@pytest.fixture
def opened(browser, server):
    with a_window(browser, server) as opened:
        yield opened


@pytest.fixture
def chat(browser, chat_server):
    with a_window(browser, chat_server) as opened:
        yield opened
