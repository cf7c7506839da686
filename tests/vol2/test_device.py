"""Names of devices."""

import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.errors import EnvironmentFault, UserError  # noqa: E402
from nano_llama.vol2_torch.device import resolve_device  # noqa: E402


def test_names():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("gpu", "meta", ""):
        with pytest.raises(UserError, match=repr(name)):
            resolve_device(name)
    with pytest.raises(EnvironmentFault, match="cuda:77"):
        resolve_device("cuda:77")
