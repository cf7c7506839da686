"""What most tests of the API share: a server with a small random model, and the same model without one."""

import pytest

from helpers.api import random_llm, served


@pytest.fixture(scope="module")
def client():
    with served(random_llm()) as client:
        yield client


@pytest.fixture(scope="module")
def llm():
    with random_llm() as llm:
        yield llm
