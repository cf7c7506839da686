"""Are these gradients right? Every derivative can be measured: move an input a little and look.

    gradcheck(rmsnorm_forward, rmsnorm_backward, {"x": x, "weight": w, "eps": 1e-5})     any pair, yours too
    gradcheck_model(model, tokens, targets)                                              all that a model trains

Both raise GradientMismatch naming the argument and the index that is wrong, and return what they measured otherwise.
verify/gradients.py compares with another implementation instead. Tests: tests/vol1/test_gradcheck.py.

An op's output is an array, so its derivative is measured through a scalar: L = sum(out * dout) for a random dout,
whose gradient is exactly what backward(dout, cache) claims to return. In one coordinate, with step h,

    L'  ~  (L(-2h) - 8 L(-h) + 8 L(+h) - L(+2h)) / (12 h)

Expanding each L in its Taylor series, the terms in h^0, h^2, h^3 and h^4 cancel: the error is h^4 L'''''/30, against
h^2 L'''/6 for two points. (Fornberg 1988, Mathematics of Computation 51, table 1.) Rounding adds about 1e-16 |L| / h:
in float64 with h = 2e-4 both are far below 1e-7 (h^4 is 2e-15). float32 can say little, and is refused.

At a kink, such as ReLU's at 0, the Taylor series does not hold: points on both sides say nothing about either slope.
So where an entry disagrees, it is measured again with shorter steps, which may leave the kink outside; if the slopes on
both sides differ even then, the message says so. A wrong gradient stays wrong at every step size.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.vol1_numpy.ops.array import Array

Index = tuple[int, ...]


class GradientMismatch(NanoLlamaError):
    """A gradient that differs from the measured one; `checks` holds every argument's figures."""

    def __init__(self, message: str, checks: "Sequence[ArgumentCheck]" = ()):
        super().__init__(message)
        self.checks = list(checks)


@dataclass(frozen=True)
class ArgumentCheck:
    """One argument's gradient against central differences."""

    name: str
    relative_error: float  # max |analytic - measured| over the sample, over the largest entry of the gradient
    worst: Index  # where the two differ most
    analytic: float  # backward's claim at `worst`
    measured: float  # central differences at `worst`
    num_checked: int  # coordinates that were moved
    kink: bool = False  # at `worst` the slopes to the left and to the right differ

    def __str__(self) -> str:
        at = ", ".join(map(str, self.worst))
        kink = "; its slopes to the left and right differ: is there a kink, such as ReLU's at 0?" if self.kink else ""
        return (
            f"gradient of {self.name!r}, worst at [{at}]: backward says {self.analytic:.10g}, "
            f"central differences {self.measured:.10g}, relative error {self.relative_error:.2g}{kink}"
        )


def gradcheck(
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[..., Any],
    inputs: Mapping[str, Any] | Sequence[Any],
    *,
    wrt: Iterable[str] | None = None,
    tolerance: float = 1e-7,
    step: float = 2e-4,
    samples: int | None = None,
    seed: int = 0,
) -> list[ArgumentCheck]:
    """Check a pair  forward(*inputs) -> (out, cache),  backward(dout, cache) -> gradient or tuple of gradients.

    inputs: by name, or in forward's order; float64 arrays where a gradient is checked. wrt: the arguments that
    backward has gradients for, in its order; by default every floating array of `inputs`. samples: coordinates checked
    of each argument (None: all), half drawn by `seed`, half where the gradient is largest. out may be an array or a
    scalar. forward must give the same answer each time: pass a function that seeds its own generator if it draws.

    Raises GradientMismatch naming argument and index where the relative error exceeds `tolerance`, or where backward
    returns other gradients than `wrt` asks for; UserError for inputs that cannot be checked.
    """
    named = _by_name(forward, inputs)

    def run() -> tuple[Any, Any]:
        result = forward(**named) if isinstance(inputs, Mapping) else forward(*named.values())
        if not (isinstance(result, tuple) and len(result) == 2):
            kind = f"{len(result)} values" if isinstance(result, tuple) else f"one {type(result).__name__}"
            raise UserError(
                f"gradcheck: {_name(forward, 'forward')} returned {kind}; expected two, (out, cache).",
                hint="If backward needs nothing from forward, return out, ()",
            )
        return result

    names = list(wrt) if wrt is not None else [name for name, value in named.items() if _is_float_array(value)]
    for name in names:
        if name not in named or not _is_float_array(named[name]):
            raise UserError(f"gradcheck: {name!r} is not a floating-point array among the inputs {', '.join(named)}.")
        if named[name].dtype != np.float64:
            raise UserError(
                f"gradcheck: {name!r} is {named[name].dtype}; differences need float64.",
                hint="Convert the inputs with .astype(np.float64): the formulas are the same.",
            )
    if not names:
        kinds = ", ".join(f"{name} is {_kind(value)}" for name, value in named.items())
        raise UserError(
            f"gradcheck: nothing to check among the inputs: {kinds or 'there are none'}.",
            hint="Gradients are checked of arrays in float64:  np.array(x, dtype=float)",
        )
    arrays = {name: named[name].copy() for name in names}  # moved in place below; the caller's stay as they are
    named |= arrays

    out, cache = run()
    dout = np.random.default_rng((seed, 1)).standard_normal(np.shape(out))
    where = _name(backward, "backward")
    try:
        inspect.signature(backward).bind(dout, cache)
    except TypeError as error:
        raise UserError(
            f"gradcheck: {where} does not take (dout, cache): {error}.",
            hint="backward(dout, cache): the gradient of the output, and what forward returned beside it.",
        ) from None
    claimed = backward(dout if np.shape(out) else float(dout), cache)
    if claimed is None:
        raise GradientMismatch(f"{where} returned None: does it end without a return?")
    claimed = claimed if isinstance(claimed, tuple) else (claimed,)
    if len(claimed) != len(names):
        raise GradientMismatch(f"{where} returned {len(claimed)} gradients for {len(names)} ({', '.join(names)}).")

    def loss() -> float:
        return float(np.sum(np.asarray(run()[0]) * dout))

    return _compare(where, loss, arrays, dict(zip(names, claimed, strict=True)), tolerance, step, samples, seed)


def gradcheck_model(
    model: Any,
    tokens: Array,
    targets: Array,
    *,
    tolerance: float = 1e-7,
    step: float = 2e-4,
    samples: int | None = 6,
    seed: int = 0,
    **options: Any,
) -> list[ArgumentCheck]:
    """Check model.loss_and_grads(tokens, targets, **options) for all of model.trainable, `samples` coordinates of each.

    Its tensors must be float64 (Llama.init(config, dtype=np.float64)); they are moved and put back.
    Raises as gradcheck does.
    """
    for name, param in model.trainable.items():
        if param.dtype != np.float64:
            raise UserError(
                f"gradcheck: {name} is {param.dtype}; differences need float64.",
                hint="Build the model with dtype=np.float64.",
            )
    _, grads = model.loss_and_grads(tokens, targets, **options)
    if grads.keys() != model.trainable.keys():
        odd = sorted(grads.keys() ^ model.trainable.keys())
        raise GradientMismatch(f"loss_and_grads: {odd[0]!r} is trainable and has no gradient, or the reverse.")

    def loss() -> float:
        return model.loss(tokens, targets, **options)

    return _compare("loss_and_grads", loss, model.trainable, grads, tolerance, step, samples, seed)


def central_difference(loss: Callable[[], float], array: Array, index: Index, step: float = 2e-4) -> float:
    """The derivative of `loss()` in array[index] by five points; the array is moved in place and put back."""
    kept = array[index]
    values = []
    for move in (-2, -1, 1, 2):
        array[index] = kept + move * step
        values.append(loss())
    array[index] = kept
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)


def _compare(
    where: str,
    loss: Callable[[], float],
    arrays: Mapping[str, Array],
    grads: Mapping[str, Any],
    tolerance: float,
    step: float,
    samples: int | None,
    seed: int,
) -> list[ArgumentCheck]:
    checks = []
    noise = 4 * np.finfo(np.float64).eps * abs(loss()) / step  # what rounding of L leaves in a difference
    for number, (name, array) in enumerate(arrays.items()):
        if np.shape(grads[name]) != array.shape:
            raise GradientMismatch(
                f"{where}: gradient of {name!r} has shape {np.shape(grads[name])}, not {array.shape}."
            )
        rng = np.random.default_rng((seed, 2, number))
        indices = _coordinates(grads[name], samples, rng)
        grad = np.asarray(grads[name])
        measured, kinks = _measure(loss, array, grad, indices, tolerance, step, noise)
        checks.append(_judge(name, grad, indices, measured, kinks, noise))
    wrong = [check for check in checks if not check.relative_error <= tolerance]  # "not <=": a NaN is wrong too
    if wrong:
        lines = "\n".join(str(check) for check in wrong)
        raise GradientMismatch(f"{where}: {lines}\n(tolerated: {tolerance:.0e})", checks)
    return checks


def _measure(
    loss: Callable[[], float],
    array: Array,
    grad: Array,
    indices: list[Index],
    tolerance: float,
    step: float,
    noise: float,
) -> tuple[Array, Array]:
    """Central differences at `indices`, with shorter steps where they disagree with `grad`; and where kinks are."""
    measured = np.array([central_difference(loss, array, index, step) for index in indices])
    kinks = np.zeros(len(indices), bool)
    tolerated = tolerance * _scale(grad, measured)
    for at, index in enumerate(indices):
        for shorter in (8, 64):
            if not abs(float(grad[index]) - measured[at]) <= tolerated + noise:
                again = central_difference(loss, array, index, step / shorter)
                kinks[at] = _slopes_differ(loss, array, index, step / shorter, _scale(grad, measured))
                if abs(again - measured[at]) > tolerated + shorter * noise:
                    measured[at] = again
    return measured, kinks


def _slopes_differ(loss: Callable[[], float], array: Array, index: Index, step: float, scale: float) -> bool:
    """Whether the slopes to the left and to the right differ by more than curvature explains over so short a step."""
    kept, middle = array[index], loss()
    array[index] = kept - step
    left = middle - loss()
    array[index] = kept + step
    right = loss() - middle
    array[index] = kept
    return abs(right - left) / step > 1e-2 * scale


def _judge(name: str, grad: Array, indices: list[Index], measured: Array, kinks: Array, noise: float) -> ArgumentCheck:
    if not indices:
        return ArgumentCheck(name, 0.0, (), 0.0, 0.0, 0)
    analytic = np.array([float(grad[index]) for index in indices])
    errors = np.maximum(np.abs(analytic - measured) - noise, 0)  # a NaN stays one
    at = int(np.argmax(errors))  # the first NaN, if there is one
    return ArgumentCheck(
        name, float(errors[at]) / _scale(grad, measured), indices[at], float(analytic[at]), float(measured[at]),
        len(indices), bool(kinks[at]),
    )  # fmt: skip


def _scale(grad: Array, measured: Array) -> float:
    """The tensor's largest entry: errors are relative to it, because single entries may be zero."""
    return max(float(np.max(np.abs(grad), initial=0)), float(np.max(np.abs(measured), initial=0)), 1e-12)


def _coordinates(grad: Array, samples: int | None, rng: np.random.Generator) -> list[Index]:
    """All indices, or `samples` of them: half at random, half where the gradient is largest."""
    flat: Array | range = range(grad.size)
    if samples is not None and samples < grad.size:
        largest = np.argsort(-np.abs(grad), axis=None)[: samples // 2]
        drawn = rng.choice(grad.size, size=samples - len(largest), replace=False)
        flat = np.union1d(largest, drawn)
    return [tuple(int(i) for i in np.unravel_index(position, grad.shape)) for position in flat]


def _name(function: Callable[..., Any], otherwise: str) -> str:
    return getattr(function, "__name__", otherwise)


def _kind(value: Any) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def _by_name(forward: Callable[..., Any], inputs: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    signature = inspect.signature(forward)
    names = list(signature.parameters)
    try:
        if isinstance(inputs, Mapping):
            signature.bind_partial(**inputs)  # first, so that a misspelled name is reported
            signature.bind(**inputs)
        else:
            signature.bind(*inputs)
    except TypeError as error:
        raise UserError(
            f"gradcheck: these inputs do not fit {_name(forward, 'forward')}: {error}.",
            hint=f"It takes {', '.join(names)}.",
        ) from None
    if isinstance(inputs, Mapping):
        return dict(inputs)
    names += [f"argument {i}" for i in range(len(names), len(inputs))]
    return dict(zip(names, inputs, strict=False))


def _is_float_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
