"""Fixtures for tests of many processes.

ranks    ranks(2).run(case, **arguments): the case in every one of two processes, started once for the session
recipe   recipe.torchrun(...): processes as users start them, of a short run whose losses are known
"""

import sys
from pathlib import Path

import pytest

LONGEST = ["test_training.py", "test_started.py", "test_trainer.py", "test_options.py", "test_failures.py"]


def pytest_collection_modifyitems(items) -> None:
    """The longest files first: `make parallel` gives files to two processes, which then end about together."""
    files = {Path(__file__).with_name(name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: files.get(item.path, len(files)))


@pytest.fixture(scope="session")
def ranks():
    from helpers.parallel.ranks import Ranks

    started: dict[int, Ranks] = {}

    def get(world_size: int) -> Ranks:
        return started.setdefault(world_size, Ranks(world_size))

    yield get
    for group in started.values():
        group.end()


@pytest.fixture(scope="session")
def recipe(tale, tmp_path_factory):
    from helpers.parallel.preloaded import preloaded
    from helpers.parallel.started import Recipe

    with preloaded(tmp_path_factory.mktemp("python")) as python:
        yield Recipe(tale, tmp_path_factory.mktemp("recipe"), python)


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    """A test that fails midway leaves its torchruns, which would hold the ports of the next one."""
    yield
    if (helper := sys.modules.get("helpers.parallel.started")) is None:
        return
    for agent in helper.STARTED:
        if agent.poll() is None:
            helper.end(agent)
            agent.wait(60)
    helper.STARTED.clear()
