"""Fixtures for tests of many processes.

ranks    ranks(2).run(case, **arguments): the case in every one of two processes, started once for the session
"""

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
