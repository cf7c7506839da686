"""launch.py: what is refused, and the next step that each refusal names; triton itself is played by a stand-in."""

import sys
from types import SimpleNamespace

import pytest
import torch

from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.vol2_torch.kernels import launch


@pytest.fixture(autouse=True)
def asked_anew():
    launch.is_interpreted.cache_clear()
    yield
    launch.is_interpreted.cache_clear()


@pytest.fixture
def triton(monkeypatch):
    """triton(interpret): what is found under that name."""

    def install(interpret: bool) -> None:
        stand_in = SimpleNamespace(knobs=SimpleNamespace(runtime=SimpleNamespace(interpret=interpret)))
        monkeypatch.setitem(sys.modules, "triton", stand_in)

    return install


def test_without_triton_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # importing it raises ModuleNotFoundError
    with pytest.raises(EnvironmentFault, match=r"Flash attention needs .*'triton'") as caught:
        launch.check_tensors("Flash attention", torch.ones(1))
    assert "[triton]" in caught.value.hint


def test_a_cpu_tensor_is_for_the_interpreter(triton):
    triton(interpret=False)
    with pytest.raises(EnvironmentFault, match="these tensors are on cpu") as caught:
        launch.check_tensors("Flash attention", torch.ones(1))
    assert "TRITON_INTERPRET=1" in caught.value.hint
    launch.is_interpreted.cache_clear()
    triton(interpret=True)
    launch.check_tensors("Flash attention", torch.ones(1))


def test_bfloat16_is_refused_under_the_interpreter_only(triton):
    triton(interpret=True)
    with pytest.raises(UserError, match="multiplies bfloat16 matrices wrongly") as caught:
        launch.check_tensors("Flash attention", torch.ones(1, dtype=torch.bfloat16))
    assert "float16" in caught.value.hint
    for dtype in (torch.float16, torch.float32, torch.float64):
        launch.check_tensors("Flash attention", torch.ones(1, dtype=dtype))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ([torch.ones(1), torch.ones(1, dtype=torch.float16)], r"torch.float16, torch.float32; expected one dtype"),
        ([torch.ones(1), torch.ones(1, device="meta")], r"on cpu, meta; expected one device"),
        ([torch.ones(1, dtype=torch.int64)], r"is given torch.int64"),
        ([torch.ones(1, device="meta")], r"these are on meta"),
    ],
)
def test_tensors_that_no_kernel_takes(triton, tensors, says):
    triton(interpret=True)
    with pytest.raises((UserError, EnvironmentFault), match=says):
        launch.check_tensors("Flash attention", *tensors)
