"""What every optimizer here shares: state per parameter, a step over {name: array}, and saving for a later resume.

Tests: tests/vol1/test_optim_base.py.

An update rule is one short method, `update`, that changes a parameter array in place: the model that holds the same
array sees the new weights at once, and nothing is allocated that outlives the step.
"""

from collections.abc import Callable, Mapping

import numpy as np

from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.names import is_decayed

Arrays = Mapping[str, np.ndarray]


class Optimizer:
    """The common part. A subclass names its state arrays in `slots` and writes `update`."""

    slots: tuple[str, ...] = ()  # each slot is one array per parameter, of its shape, starting at zero

    def __init__(
        self, params: Arrays, lr: float, *, weight_decay: float = 0.0, decays: Callable[[str], bool] = is_decayed
    ):
        """`params` {name: array}; `decays(name)` says which of them have weight decay: by default the matrices,
        because shrinking a norm's gain does not regularize, it only rescales the layer.
        Raises UserError for a negative rate."""
        check_range("learning rate", lr, 0.0)
        check_range("weight decay", weight_decay, 0.0)
        self.lr = lr
        self.steps = 0
        self.weight_decay = {name: weight_decay if decays(name) else 0.0 for name in params}
        self.state = {slot: {name: np.zeros_like(param) for name, param in params.items()} for slot in self.slots}

    def step(self, params: Arrays, grads: Arrays, lr: float | None = None) -> None:
        """Update every array of `params` in place from the gradient of the same name and shape.

        `lr` is this step's learning rate where a schedule sets one; otherwise the constructor's applies.
        """
        self.steps += 1
        for name, param in params.items():
            self.update(name, param, grads[name], self.lr if lr is None else lr)

    def update(self, name: str, param: np.ndarray, grad: np.ndarray, lr: float) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything that a later step depends on, as flat {slot.name: array}, not copied. The rates are settings."""
        arrays = {f"{slot}.{name}": array for slot, by_name in self.state.items() for name, array in by_name.items()}
        return {"steps": np.array(self.steps, np.int64), **arrays}

    def load_state_dict(self, saved: Arrays) -> None:
        """Continue exactly where `saved` left off. Raises FormatError if another optimizer or model wrote it."""
        own = self.state_dict()
        if own.keys() != saved.keys():
            odd = sorted(own.keys() ^ saved.keys())
            raise FormatError(
                f"The saved state does not match {type(self).__name__}: {odd[0]!r} is in one and not in the other"
                f" ({len(odd)} such names).",
                hint="Resume with the optimizer and the model that wrote it.",
            )
        for key, array in own.items():
            if array.shape != saved[key].shape:
                raise FormatError(f"The saved state {key!r} has shape {saved[key].shape}, the model {array.shape}.")
        self.steps = int(saved["steps"])
        for key, array in own.items():
            np.copyto(array, saved[key])


def check_range(what: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise UserError unless low <= value < high (a NaN never is)."""
    if not low <= value < high:
        allowed = f"at least {low:g}" if high == float("inf") else f"at least {low:g} and below {high:g}"
        raise UserError(f"The {what} is {value}; it must be {allowed}.")
