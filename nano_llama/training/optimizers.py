"""The names that `optimizer` may have, and one's own: my_file.py:MyOptimizer.

A class for Volume 1 has the interface of vol1_numpy/optim/base.py, one for Volume 2 that of torch.optim.Optimizer:

    class SignSGD(Optimizer):                                    nano-llama train --engine numpy \\
        def update(self, name, param, grad, lr):                     --optimizer my_file.py:SignSGD ...
            param -= lr * np.sign(grad)

Not here: the update rules. Tests: tests/training/test_own_optimizer.py.
"""

import inspect
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from nano_llama.core.errors import UserError

OPTIMIZER_NAMES = (
    "adamw", "muon", "lion", "adafactor", "schedulefree", "adam", "sgd", "momentum", "nesterov",
)  # fmt: skip


def is_own(optimizer: str) -> bool:
    """Whether it names a class in a file."""
    return ".py:" in optimizer


def check_optimizer(optimizer: str) -> None:
    """Raise UserError for what is neither a name nor my_file.py:MyOptimizer."""
    if optimizer not in OPTIMIZER_NAMES and not is_own(optimizer):
        raise UserError(
            f"optimizer = {optimizer!r} must be {' or '.join(OPTIMIZER_NAMES)}, or your own: my_file.py:MyOptimizer."
        )


def load_optimizer(optimizer: str, base: type) -> Any:
    """The class of my_file.py:MyOptimizer, which must be a subclass of `base`. The file is run. Raises UserError."""
    file, _, name = optimizer.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"optimizer = {optimizer!r}: there is no file {path}.", hint="Give  my_file.py:MyOptimizer")
    spec = spec_from_file_location(f"nano_llama_own_{path.stem}", path.resolve())
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # pickle and dataclasses look there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} fails when it is imported: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        named = {key: value for key, value in vars(module).items() if isinstance(value, type) and value is not base}
        has = [key for key, value in named.items() if issubclass(value, base)]
        other = "numpy" if base.__module__.startswith("torch") else "torch"
        raise UserError(
            f"optimizer = {optimizer!r}: {path} has no subclass {name!r} of {base.__module__}.{base.__qualname__}.",
            hint=f"It has {', '.join(has)}."
            if has
            else f"It has none. One of the other volume needs --engine {other}.",
        )
    return found


def taken(optimizer: type, **options: Any) -> dict[str, Any]:
    """Those of the options that the constructor names."""
    names = inspect.signature(optimizer).parameters
    return {name: value for name, value in options.items() if name in names}
