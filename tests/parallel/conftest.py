"""Fixtures for tests of many processes.

ranks    ranks(2).run(case, **arguments): the case in every one of two processes, started once for the session
"""

import sys

import pytest


@pytest.fixture(scope="session")
def ranks():
    from helpers.parallel.ranks import Ranks

    started: dict[int, Ranks] = {}

    def get(world_size: int) -> Ranks:
        return started.setdefault(world_size, Ranks(world_size))

    yield get
    for group in started.values():
        group.end()


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
