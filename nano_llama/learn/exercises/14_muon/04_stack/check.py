import numpy as np

from nano_llama.learn.checks import NO_SIZES, TOLERANCE, Case, called, compare, rounded

NAME, RESULT = "orthogonalize_stack", "orthogonalize_stack(...)"

JORDAN, CLASSICAL, CUBIC = (3.4445, -4.7750, 2.0315), (1.875, -1.25, 0.375), (1.5, -0.5, 0.0)
PRODUCTS = (np.dot, np.einsum, np.matmul, np.tensordot)


class Counting(np.ndarray):
    """An array that counts the matrix products that it, and what is made of it, takes part in."""

    def __array_finalize__(self, of):
        self.counts = getattr(of, "counts", None) or {"products": 0, "operations": 0}

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [np.asarray(x) if isinstance(x, Counting) else x for x in inputs]
        if out is not None:
            options["out"] = tuple(np.asarray(x) if isinstance(x, Counting) else x for x in out)
        if isinstance(options.get("where"), Counting):
            options["where"] = np.asarray(options["where"])
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            self._count(np.prod(result.shape) * plain[0].shape[-1])
        if out is not None:
            return out[0]
        return self._of_mine(result)

    def __array_function__(self, function, types, args, options):
        if function in PRODUCTS:
            self._count(0)
        return super().__array_function__(function, types, args, options)

    def _count(self, operations):
        self.counts["products"] += 1
        self.counts["operations"] += int(operations)

    def _of_mine(self, result):
        if not isinstance(result, np.ndarray):
            return result
        mine = result.view(Counting)
        mine.counts = self.counts
        return mine


def make(rng, matrices, rows, columns, rounds=2):
    stack = rng.standard_normal((matrices, rows, columns)) * 2.0 ** np.arange(matrices)[:, None, None]
    return {"stack": stack, "coefficients": [JORDAN, CLASSICAL, CUBIC][:rounds]}


def one_by_one(stack, coefficients):
    results = []
    for matrix in np.asarray(stack):
        p, s, q = np.linalg.svd(matrix, full_matrices=False)
        s = s / np.linalg.norm(s) if s.any() else s
        for a, b, c in coefficients:
            s = a * s + b * s**3 + c * s**5
        results.append((p * s) @ q)
    return np.array(results)


def case(stage, label, inputs, seed=0, sizes=NO_SIZES):
    stack, rounds = inputs["stack"], len(inputs["coefficients"])
    matrices, (short, long) = len(stack), sorted(stack.shape[1:])

    def run(module):
        counting = stack.copy().view(Counting)
        result = called(module, NAME, {**inputs, "stack": counting})
        return {RESULT: np.asarray(result), **counting.counts}

    def holds(outputs):
        difference = compare({RESULT: outputs[RESULT]}, {RESULT: one_by_one(**inputs)}, TOLERANCE)
        if difference is not None:
            return difference.message
        if outputs["products"] > 3 * rounds:
            return (
                f"{outputs['products']} products in {rounds} rounds for {matrices} matrices; {3 * rounds} are enough."
            )
        if outputs["operations"] > rounds * matrices * (2 * short * short * long + short**3):
            return "The products were formed on the longer side."
        return None

    return Case(stage, label, run, seed, inputs, sizes, holds=holds)


def cases(seed):
    small = [(2, 2, 3), (1, 2, 2), (2, 3, 2), (3, 2, 3)]
    for shape in small:
        sizes = dict(zip(("matrices", "rows", "columns"), shape, strict=True))
        label = ", ".join(f"{name} = {size}" for name, size in sizes.items())
        yield case("smallest", label, rounded(make(np.random.default_rng(0), *shape)), sizes=sizes)
    for number, (*shape, rounds) in enumerate([(4, 5, 4, 3), (6, 3, 7, 3), (3, 3, 3, 1)]):
        inputs = make(np.random.default_rng((seed, number)), *shape, rounds)
        yield case("random", f"{shape[0]} matrices of {shape[1]} x {shape[2]}", inputs, seed)
    zeros = make(np.random.default_rng(3), 3, 2, 4)
    zeros["stack"][1] = 0
    yield case("edge", "a matrix of zeros", zeros)
