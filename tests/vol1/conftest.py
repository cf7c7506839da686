"""`op_name` runs over every op of Volume 1, plain and fast."""

from helpers.op_references import FAST_PAIRS, PAIRS


def pytest_generate_tests(metafunc):
    if "op_name" in metafunc.fixturenames:
        metafunc.parametrize("op_name", [*PAIRS, *FAST_PAIRS])
