"""The page in a browser: the system's Chromium, run by Playwright; and the server that it is opened on."""

import shutil
from contextlib import contextmanager

import pytest

from helpers.api import bpe, random_folder, random_llm
from helpers.page import a_window
from helpers.served import SOON, Served
from nano_llama.server.replayer import Replayer
from nano_llama.vol2_torch.layerwise import last_logits

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


@contextmanager
def served_from_a_file(folder, tokenizer):
    """A tiny random model, which Volumes 1 and 2 can read again."""
    with Served(load=lambda: random_llm(tokenizer)) as served:
        served.service.replayer = Replayer(random_folder(folder, tokenizer), last_logits)
        assert served.ready.wait(SOON)
        yield served


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One that only continues texts."""
    with served_from_a_file(tmp_path_factory.mktemp("completion") / "tiny", bpe(chat_template=None)) as served:
        yield served


@pytest.fixture(scope="session")
def chat_server(tmp_path_factory):
    """One with a chat template."""
    with served_from_a_file(tmp_path_factory.mktemp("chat") / "tiny", bpe()) as served:
        yield served


@pytest.fixture
def opened(browser, server):
    with a_window(browser, server) as opened:
        yield opened


@pytest.fixture
def chat(browser, chat_server):
    with a_window(browser, chat_server) as opened:
        yield opened
