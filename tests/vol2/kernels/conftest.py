"""Tests marked `triton` run kernels in Triton's interpreter; those without the mark need no triton.

Triton looks at TRITON_INTERPRET when a kernel is defined, so it is set before the first of these tests imports one, and
they have a process of their own:  pytest -n 0 -m triton
"""

import os

import pytest


@pytest.fixture(autouse=True)
def interpreter(request) -> None:
    if request.node.get_closest_marker("triton"):
        os.environ["TRITON_INTERPRET"] = "1"
        pytest.importorskip("triton", reason='pip install -e ".[triton]"')
