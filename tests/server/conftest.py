"""What most tests of the API share: a server with a small random model, the same model without one, and its folder."""

import pytest

from helpers.api import random_folder, random_llm, served


@pytest.fixture(scope="module")
def client():
    with served(random_llm()) as client:
        yield client


@pytest.fixture(scope="module")
def llm():
    with random_llm() as llm:
        yield llm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_folder(tmp_path_factory.mktemp("models") / "tiny")
