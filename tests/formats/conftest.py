"""Fixtures of the format tests.

random_weights   weights of a config, the norms' gains random too
same_tensors     compares two mappings bit for bit
refuse           opens a hostile file under limits on memory and time, and wants our error, naming the file
survive          the same for a damaged file that may still be valid: our error or a whole model, nothing else
"""

import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.init import init_params
from nano_llama.formats import open_weights

SECONDS = 5
EXTRA_BYTES = 200 * 10**6


@pytest.fixture(scope="session")
def smollm2_reader(smollm2: Path) -> Any:
    """The `gguf` library's view of the real model; it takes seconds to make."""
    return pytest.importorskip("gguf").GGUFReader(smollm2)


@pytest.fixture
def random_weights() -> Callable[..., dict[str, np.ndarray]]:
    def make(config: LlamaConfig, seed: int = 0, dtype: type = np.float32) -> dict[str, np.ndarray]:
        weights = init_params(config, seed=seed, dtype=dtype)
        rng = np.random.default_rng(seed)
        gains = {name: 1 + rng.normal(0, 0.2, array.shape) for name, array in weights.items() if array.ndim == 1}
        return weights | {name: gain.astype(dtype) for name, gain in gains.items()}

    return make


@contextmanager
def limits(path: Path) -> Iterator[None]:
    """At most twice the file plus 200 MB of address space beyond what the process has, and 5 s of CPU."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"over {SECONDS} s of CPU on {path}")

    files = [path] if path.is_file() else list(path.rglob("*"))
    size = sum(file.stat().st_size for file in files)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGVTALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2 * size + EXTRA_BYTES, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


def read_all(path: Path) -> None:
    with open_weights(path) as weights:
        for name in weights:
            assert weights[name].shape == weights.shape(name)


@pytest.fixture
def refuse() -> Callable[..., None]:
    def check(path: Path, cause: str = "", opener: Callable[[Path], object] = read_all) -> None:
        """`cause`: words that the message must contain."""
        with pytest.raises(UserError) as caught, limits(path):
            opener(path)
        message = str(caught.value)
        assert path.name in message, f"the message does not name the file: {message}"
        assert cause.lower() in message.lower(), f"{cause!r} is not in the message: {message}"
        assert len(message) < 1000

    return check


@pytest.fixture
def survive() -> Callable[[Path], None]:
    def check(path: Path) -> None:
        try:
            with limits(path):
                read_all(path)
        except UserError as error:
            assert path.name in str(error)

    return check


@pytest.fixture
def same_tensors() -> Callable[[Mapping, Mapping], None]:
    def check(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
        """The same names, types and bits; names the tensor that differs."""
        assert set(found) == set(wanted)
        for name, array in wanted.items():
            assert found[name].dtype == array.dtype, name
            assert found[name].shape == array.shape, name
            assert np.ascontiguousarray(found[name]).tobytes() == np.ascontiguousarray(array).tobytes(), name

    return check
