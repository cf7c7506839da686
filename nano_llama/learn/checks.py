"""What a check.py is made of: cases, in stages, each a call that is made of the learner's code and of the reference.

    def cases(seed):                                            # of an exercise's check.py
        yield from op_cases("scale_forward", "scale_backward", inputs, wrt=("x",), small=[...], random=[...], seed=seed)

A case says how to call a module; the reference, called the same way, says what is expected. So a known mistake can be
recognized too: a wrong solution that is kept gives the same result (worker.py). Stages run in the order of STAGES and
stop at the first failure. Small cases come first, with numbers of one decimal, to be followed by hand.

Tests: tests/learn/test_checks.py.
"""

import re
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from nano_llama.vol1_numpy.gradcheck import GradientMismatch, gradcheck

STAGES = ("imports", "shapes", "smallest", "random", "gradcheck", "edge", "resources", "training")
TRAINING = "training"  # a stage that takes minutes
STAGE_TITLES = {
    "imports": "it can be imported",
    "shapes": "shapes and dtypes",
    "smallest": "smallest examples",
    "random": "random cases",
    "gradcheck": "gradients against central differences",
    "edge": "edge cases",
    "resources": "time and memory",
    "training": "a run of two minutes",
}
# Where the learner writes the test.
TEST_TITLES = {"smallest": "it passes on sound code", "random": "it fails on faulty code"}
TOLERANCE = 1e-9  # of a result in float64, relative to the array's largest entry
FLOOR = 1e-4  # but to no less than this: of a sum that cancels, rounding is left
GRADIENT_TOLERANCE = 1e-7
NO_SIZES: Mapping[str, int] = {}
SHOWN_ENTRIES = 24  # an argument with more is shown by its shape

Inputs = dict[str, Any]
Outputs = dict[str, Any]
MakeInputs = Callable[..., Inputs]  # make(rng, **sizes)


class Rejected(Exception):
    """A rule that a call broke, in words for the learner."""


@dataclass(frozen=True)
class Difference:
    """Where a result is not the expected one: in `output`, at `index` of its array."""

    output: str
    message: str
    index: tuple[int, ...] | None = None
    expected: Any = None
    found: Any = None


@dataclass(frozen=True)
class Case:
    """One call. run(module) -> outputs by name; they must equal the reference's, unless `holds` is given.

    expected: what to compare with instead of the reference's outputs. holds(outputs): a sentence where a property
    fails, or None. judge(module): for gradients, the Difference by itself. sizes: for naming a wrong factor.
    also(reference): more to show beside the inputs.
    """

    stage: str
    label: str
    run: Callable[[ModuleType], Outputs]
    seed: int | None = None
    inputs: Inputs = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    expected: Callable[[], Outputs] | None = None
    holds: Callable[[Outputs], str | None] | None = None
    judge: Callable[[ModuleType], Difference | None] | None = None
    also: Callable[[ModuleType], Inputs] | None = None
    tolerance: float = TOLERANCE
    floor: float = FLOOR

    def difference(self, module: ModuleType, outputs: Outputs, reference: ModuleType) -> Difference | None:
        """What is wrong with the outputs of run(module), if anything."""
        if self.judge is not None:
            return self.judge(module)
        if self.holds is not None:
            says = self.holds(outputs)
            return Difference("", says) if says else None
        wanted = self.expected() if self.expected is not None else self.run(reference)
        return compare(outputs, wanted, self.tolerance, self.floor, shapes_only=self.stage == "shapes")

    def arguments(self, reference: ModuleType) -> str:
        """The inputs as text, large arrays by their shape; all arrays so where only shapes are looked at."""
        inputs = {**self.inputs, **(self.also(reference) if self.also is not None else {})}
        entries = 0 if self.stage == "shapes" else SHOWN_ENTRIES
        return "\n".join(f"{name} = {shown(value, entries)}" for name, value in inputs.items())


def called(module: ModuleType, name: str, inputs: Inputs) -> Any:
    """module.name(**inputs), with copies of the arrays. Raises Rejected where it is missing or changes an argument."""
    function = getattr(module, name, None)
    if not callable(function):
        raise Rejected(f"The file has no function {name!r}.")
    given = {key: copied(value) for key, value in inputs.items()}
    result = function(**given)
    for key, value in inputs.items():
        if not same(given[key], value):
            raise Rejected(f"{name} changes its argument {key!r} in place; the caller still needs it.")
    if result is None:
        raise Rejected(f"{name} returned None. Is there still a  ...  in it?")
    return result


def copied(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def same(a: Any, b: Any) -> bool:
    """Equal, of equal types and shapes, NaN like NaN; a NumPy integer is an integer."""
    if isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=b.dtype.kind in "fc")
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in b)
    if isinstance(b, int):
        return isinstance(a, int | np.integer) and bool(a == b)
    if isinstance(b, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def op_cases(
    forward: str,
    backward: str,
    make: MakeInputs,
    *,
    wrt: tuple[str, ...],
    small: Iterable[Mapping[str, int]],
    random: Iterable[Mapping[str, int]],
    seed: int,
    edges: Mapping[str, Inputs] | None = None,
    out: str = "y",
) -> Iterator[Case]:
    """The cases of a pair  forward(**inputs) -> (y, cache),  backward(dy, cache) -> gradients of `wrt`.

    y may be a tuple of arrays of one shape: then backward takes a gradient for each, and cache last. out: another name
    for y in what is reported, the one that the stub has.
    small, random: sizes, given to make(rng, **sizes). edges: label -> inputs, compared with the reference throughout.
    """
    small, random = list(small), list(random)

    def outputs(inputs: Inputs) -> Callable[[ModuleType], Outputs]:
        def run(module: ModuleType) -> Outputs:
            return _by_name(_pair(called(module, forward, inputs), forward)[0], out)

        return run

    def gradients(inputs: Inputs, seed: int) -> Callable[[ModuleType], Outputs]:
        def run(module: ModuleType) -> Outputs:
            outcome, cache = _pair(called(module, forward, inputs), forward)
            return _gradients(module, backward, wrt, _like(outcome, seed), cache)

        return run

    def sent_back(inputs: Inputs, seed: int) -> Callable[[ModuleType], Inputs]:
        return lambda module: {f"d{out}": _like(_pair(called(module, forward, inputs), forward)[0], seed)}

    def gradient_difference(inputs: Inputs, seed: int) -> Callable[[ModuleType], Difference | None]:
        def judge(module: ModuleType) -> Difference | None:
            return _gradcheck(module, forward, backward, inputs, wrt, seed)

        return judge

    inputs = make(np.random.default_rng(0), **small[-1])
    yield Case("shapes", "float64", outputs(inputs), 0, inputs)
    yield Case("shapes", "gradients, float64", gradients(inputs, 0), 0, inputs)
    single = {name: value.astype(np.float32) if _is_float(value) else value for name, value in inputs.items()}
    yield Case("shapes", "float32", outputs(single), 0, single)
    yield Case("shapes", "gradients, float32", gradients(single, 0), 0, single)
    for sizes in small:
        inputs = rounded(make(np.random.default_rng(0), **sizes))
        yield Case("smallest", _label(sizes), outputs(inputs), 0, inputs, sizes)
    for number, sizes in enumerate(random):
        inputs = make(np.random.default_rng((seed, number)), **sizes)
        yield Case("random", _label(sizes), outputs(inputs), seed, inputs, sizes)
    for sizes in small:
        inputs = rounded(make(np.random.default_rng(0), **sizes))
        judge = gradient_difference(inputs, 0)
        also = sent_back(inputs, 0)
        yield Case("gradcheck", _label(sizes), gradients(inputs, 0), 0, inputs, sizes, judge=judge, also=also)
    for number, sizes in enumerate(random):
        inputs = make(np.random.default_rng((seed, number)), **sizes)
        judge = gradient_difference(inputs, seed)
        also = sent_back(inputs, seed)
        yield Case("gradcheck", _label(sizes), gradients(inputs, seed), seed, inputs, sizes, judge=judge, also=also)
    for label, inputs in (edges or {}).items():
        yield Case("edge", label, outputs(inputs), 0, inputs)
        yield Case("edge", f"{label}: gradients", gradients(inputs, 0), 0, inputs, also=sent_back(inputs, 0))


def function_cases(
    name: str,
    make: MakeInputs,
    *,
    small: Iterable[Mapping[str, int]],
    random: Iterable[Mapping[str, int]],
    seed: int,
    edges: Mapping[str, Inputs] | None = None,
    expected: Callable[..., Any] | None = None,
    holds: Callable[..., str | None] | None = None,
    tolerance: float = TOLERANCE,
    floor: float = FLOOR,
) -> Iterator[Case]:
    """The cases of one function, compared with the reference, or with expected(**inputs), written another way.

    holds(result, **inputs), where several results are right: a sentence about what is wrong with this one, or None.
    """
    output = f"{name}(...)"

    def case(stage: str, label: str, seed: int, inputs: Inputs, sizes: Mapping[str, int] = NO_SIZES) -> Case:
        def run(module: ModuleType) -> Outputs:
            return _by_name(called(module, name, inputs), output)

        def wanted() -> Outputs:
            assert expected is not None
            return _by_name(expected(**{key: copied(value) for key, value in inputs.items()}), output)

        def property_holds(outputs: Outputs) -> str | None:
            assert holds is not None
            return holds(outputs[output], **inputs)

        against = wanted if expected is not None else None
        judged = property_holds if holds is not None and stage != "shapes" else None
        return Case(stage, label, run, seed, inputs, sizes, against, judged, tolerance=tolerance, floor=floor)

    small = list(small)
    if small:
        yield case("shapes", "", 0, make(np.random.default_rng(0), **small[-1]))
    for sizes in small:
        yield case("smallest", _label(sizes), 0, rounded(make(np.random.default_rng(0), **sizes)), sizes)
    for number, sizes in enumerate(random):
        yield case("random", _label(sizes), seed, make(np.random.default_rng((seed, number)), **sizes), sizes)
    for label, inputs in (edges or {}).items():
        yield case("edge", label, 0, inputs)


def test_cases(name: str, sound: Mapping[str, tuple], faults: Mapping[str, tuple]) -> Iterator[Case]:
    """The cases of a test that the learner writes: name(*arguments) returns for sound code, and raises for faulty code.

    sound, faults: label -> arguments. The former are tried in the stage "smallest", the latter in "random".
    """

    def case(stage: str, label: str, arguments: tuple, wanted: str) -> Case:
        def run(module: ModuleType) -> Outputs:
            test = getattr(module, name, None)
            if not callable(test):
                raise Rejected(f"The file has no function {name!r}.")
            try:
                test(*map(copied, arguments))
            except AssertionError as error:
                return {"your test": "fails", "because": str(error).strip() if wanted == "passes" else ""}
            return {"your test": "passes", "because": ""}

        def holds(outputs: Outputs) -> str | None:
            if outputs["your test"] == wanted:
                return None
            if wanted == "fails":
                return f"Your test passes on faulty code: {label}."
            because = f" It says: {outputs['because']}" if outputs["because"] else ""
            return f"Your test fails on sound code: {label}.{because}"

        return Case(stage, label, run, holds=holds)

    for label, arguments in sound.items():
        yield case("smallest", label, arguments, "passes")
    for label, arguments in faults.items():
        yield case("random", label, arguments, "fails")


def memory_case(
    label: str, prepare: Callable[[ModuleType], Any], run: Callable[..., Any], limit: int, unit: int, what: str
) -> Case:
    """The peak memory of run(module, prepare(module)), beyond what was there, is at most `limit` of `unit` bytes each.

    what: such a unit, in words.
    """

    def measured(module: ModuleType) -> Outputs:
        prepared = prepare(module)
        run(module, prepared)  # once before, so that imports and NumPy's own caches do not count
        tracemalloc.start()
        try:
            kept = run(module, prepared)  # what it returns counts
            peak = tracemalloc.get_traced_memory()[1]
            del kept
            return {"peak": float(peak)}
        finally:
            tracemalloc.stop()

    def holds(outputs: Outputs) -> str | None:
        units = outputs["peak"] / unit
        return f"It needs {units:.1f} {what} at its peak; {limit} are enough." if units > limit + 0.5 else None

    return Case("resources", label, measured, holds=holds)


def compare(
    found: Outputs, expected: Outputs, tolerance: float, floor: float = FLOOR, shapes_only: bool = False
) -> Difference | None:
    """The first output that differs, at its worst index."""
    if found.keys() != expected.keys():
        return Difference("", f"It returned {len(found)} results; expected {len(expected)}: {', '.join(expected)}.")
    for name, wanted in expected.items():
        difference = _compare_one(name, found[name], wanted, tolerance, floor, shapes_only)
        if difference:
            return difference
    return None


def _compare_one(
    name: str, found: Any, wanted: Any, tolerance: float, floor: float, shapes_only: bool
) -> Difference | None:
    if not isinstance(wanted, np.ndarray | float | np.floating):
        if not isinstance(found, (int, np.integer) if isinstance(wanted, int) else type(wanted)):
            kinds = type(wanted).__name__, type(found).__name__
            return Difference(name, f"{name} is of type {kinds[1]}; expected {kinds[0]}.", expected=wanted, found=found)
        if shapes_only or same(found, wanted):
            return None
        return Difference(name, f"{name} is wrong.", expected=wanted, found=found)
    if not isinstance(found, np.ndarray | float | int | np.number):
        return Difference(name, f"{name} is of type {type(found).__name__}; expected numbers.")
    if np.shape(found) != np.shape(wanted):
        return Difference(name, f"{name} has shape {np.shape(found)}; expected {np.shape(wanted)}.")
    if isinstance(wanted, np.ndarray) and isinstance(found, np.ndarray) and found.dtype != wanted.dtype:
        return Difference(name, f"{name} is {found.dtype}; expected {wanted.dtype}, as the inputs are.")
    if shapes_only:
        return None
    errors = distances(found, wanted)
    finite = np.abs(np.asarray(wanted, np.float64))
    scale = float(np.max(finite, initial=0, where=np.isfinite(finite)))
    if not np.any(errors > tolerance * max(scale, floor)):
        return None
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(errors)), np.shape(wanted)))
    return Difference(
        name, f"{name} is wrong.", index, float(np.asarray(wanted)[index]), float(np.asarray(found)[index])
    )


def distances(found: Any, wanted: Any) -> np.ndarray:
    """|found - wanted|; infinite where one of them is not finite and they differ."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    agree = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        gap = np.abs(found - wanted)
    return np.where(agree, 0.0, np.where(np.isnan(gap), np.inf, gap))


def rounded(inputs: Inputs) -> Inputs:
    """With one decimal, so that an example can be followed by hand; never 0, where many formulas hide a mistake."""

    def one(value: Any) -> Any:
        if _is_float(value):
            value = np.round(value, 1)
            return np.where(value == 0, 0.1, value)
        return value

    return {name: one(value) for name, value in inputs.items()}


def shown_apart(expected: Any, found: Any) -> tuple[str, str]:
    """Both as text, numbers with as many digits as tell them apart."""
    texts = shown(expected), shown(found)
    return texts if texts[0] != texts[1] else (repr(expected), repr(found))


def shown(value: Any, entries: int = SHOWN_ENTRIES) -> str:
    """A value as Python would write it, or the shape of an array with more entries."""
    if isinstance(value, np.ndarray):
        if value.size > entries:
            return f"array of shape {value.shape}, {value.dtype}"
        text = np.array2string(value, separator=", ", threshold=entries, precision=6, floatmode="maxprec")
        return re.sub(r"(?<=\[) +| +(?=\])", "", re.sub(r"\s+", " ", text))
    if isinstance(value, float):
        return f"{value:.10g}"
    if callable(value):
        return value.__doc__ or value.__name__
    if isinstance(value, dict):
        text = ", ".join(f"{key!r}: {shown(item, entries)}" for key, item in value.items())
        text = f"{{{text}}}"
    elif isinstance(value, list):
        text = f"[{', '.join(shown(item, entries) for item in value)}]"
    elif isinstance(value, tuple) and any(isinstance(item, np.ndarray) for item in value):
        text = f"({', '.join(shown(item, entries) for item in value)})"
    else:
        text = repr(value)
    return text if len(text) <= 400 else f"{text[:400]} ..."


def _gradients(module: ModuleType, backward: str, wrt: tuple[str, ...], dout: Any, cache: Any) -> Outputs:
    function = getattr(module, backward, None)
    if not callable(function):
        raise Rejected(f"The file has no function {backward!r}.")
    result = function(*dout, cache) if isinstance(dout, tuple) else function(dout, cache)
    if result is None:
        raise Rejected(f"{backward} returned None. Is there still a  ...  in it?")
    grads = result if isinstance(result, tuple) else (result,)
    if len(grads) != len(wrt):
        raise Rejected(f"{backward} returned {len(grads)} gradients; expected {len(wrt)}: {', '.join(wrt)}.")
    return {f"d{name}": grad for name, grad in zip(wrt, grads, strict=True)}


def _gradcheck(
    module: ModuleType, forward: str, backward: str, inputs: Inputs, wrt: tuple[str, ...], seed: int
) -> Difference | None:
    def run(**named: Any) -> tuple[Any, Any]:
        out, cache = getattr(module, forward)(**named)
        return (np.stack(out) if isinstance(out, tuple) else out), (cache, isinstance(out, tuple))

    run.__signature__ = _signature_of(inputs)  # type: ignore[attr-defined]

    def back(dout: Any, kept: Any) -> tuple[Any, ...]:
        cache, several = kept
        return tuple(
            np.asarray(grad)
            for grad in _gradients(module, backward, wrt, tuple(dout) if several else dout, cache).values()
        )

    try:
        gradcheck(run, back, {name: copied(value) for name, value in inputs.items()}, wrt=wrt, seed=seed)
    except GradientMismatch as error:
        if not error.checks:
            return Difference("", error.message.removeprefix("back: "))
        worst = max(error.checks, key=lambda check: np.nan_to_num(check.relative_error, nan=np.inf))
        return Difference(f"d{worst.name}", f"d{worst.name} is wrong.", worst.worst, worst.measured, worst.analytic)
    return None


def _signature_of(inputs: Inputs) -> Any:
    from inspect import Parameter, Signature

    return Signature([Parameter(name, Parameter.KEYWORD_ONLY) for name in inputs])


def _like(out: Any, seed: int) -> Any:
    """The gradient that gradcheck sends into backward for this seed."""
    rng = np.random.default_rng((seed, 1))
    if isinstance(out, tuple):
        return tuple(rng.standard_normal((len(out), *np.shape(out[0]))).astype(out[0].dtype))
    if not np.shape(out):
        return float(rng.standard_normal())
    return rng.standard_normal(np.shape(out)).astype(out.dtype)


def _pair(result: Any, name: str) -> tuple[Any, Any]:
    if not (isinstance(result, tuple) and len(result) == 2):
        kind = f"{len(result)} values" if isinstance(result, tuple) else f"one {type(result).__name__}"
        raise Rejected(f"{name} returned {kind}; expected two: out, cache.")
    return result


def _by_name(result: Any, name: str) -> Outputs:
    """The parts of a result: of a tuple, and of a dict of arrays."""
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(result, tuple):
        parts = enumerate(result)
    elif isinstance(result, dict) and any(isinstance(value, np.ndarray) for value in result.values()):
        parts = result.items()
    else:
        return {name: result}
    return {key: item for part, value in parts for key, item in _by_name(value, f"{name}[{part!r}]").items()}


def _label(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {size}" for name, size in sizes.items())


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
