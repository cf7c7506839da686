"""Initial weights, drawn from NumPy's generator so that every volume starts from the same numbers.

Tests: tests/core/test_names_init_presets.py.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import FormatError
from nano_llama.core.names import DOWN_PROJ, O_PROJ, parameter_shapes


class InitialParams(Mapping[str, np.ndarray]):
    """name -> new array of `dtype`, for every parameter, drawn when it is asked for.

    Matrices are normal with standard deviation `initializer_range`; those that write into the residual stream
    (o_proj, down_proj) are scaled by 1/sqrt(2L), so that the stream's variance does not grow with the 2L writes
    (Radford et al. 2019, section 2.3). Norm gains are 1. Each tensor has a generator of its own, seeded by
    (seed, its index), so that its values depend neither on the dtype nor on the tensors before it.
    """

    def __init__(self, config: LlamaConfig, seed: int = 0, dtype: np.typing.DTypeLike = np.float32):
        self.config, self.seed, self.dtype = config, seed, dtype
        self.shapes = parameter_shapes(config)
        self.index = {name: index for index, name in enumerate(self.shapes)}

    def __getitem__(self, name: str) -> np.ndarray:
        shape = self.shapes[name]
        if name.endswith("norm.weight"):
            return np.ones(shape, self.dtype)
        residual = 1.0 / np.sqrt(2 * self.config.num_hidden_layers) if name.endswith((O_PROJ, DOWN_PROJ)) else 1.0
        values = np.random.default_rng((self.seed, self.index[name])).standard_normal(shape, np.float32)
        values *= np.float32(self.config.initializer_range * residual)
        return values.astype(self.dtype, copy=False)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def init_params(config: LlamaConfig, seed: int = 0, dtype: np.typing.DTypeLike = np.float32) -> dict[str, np.ndarray]:
    """All of `InitialParams` at once."""
    return dict(InitialParams(config, seed, dtype))


def check_params(config: LlamaConfig, params: Mapping[str, np.ndarray], source: str = "checkpoint") -> None:
    """Raise FormatError, naming the tensor, unless `params` has exactly the names and shapes that `config` implies."""
    check_shapes(parameter_shapes(config), params, source)


def check_shapes(
    expected: Mapping[str, tuple[int, ...]], params: Mapping[str, np.ndarray], source: str = "checkpoint"
) -> None:
    """Raise FormatError, naming the tensor, unless `params` has exactly the `expected` names and shapes.

    A mapping that knows shapes without loading (formats' TensorMapping) is asked for them, so nothing is read.
    """
    for problem, names in (("lacks", expected.keys() - params.keys()), ("has extra", params.keys() - expected.keys())):
        if names:
            shown = ", ".join(sorted(names)[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            raise FormatError(f"{source} {problem} {shown}.", hint="Do config and weights belong together?")
    shape_of = getattr(params, "shape", None)
    for name, shape in expected.items():
        found = tuple(shape_of(name) if callable(shape_of) else params[name].shape)
        if found != shape:
            raise FormatError(
                f"{source}: {name} has shape {found}, but the config implies {shape}.",
                hint="Do config and weights belong together?",
            )
