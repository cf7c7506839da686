"""Mutants of a solution: programs that differ from it in one place, as a slip would.

A sign, a comparison, an axis, the order of a product, a constant, a term or factor left out, a mean for a sum, a
statement left out. Tests: tests/learn/test_mutants.py.
"""

import ast
import copy
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
NAMES = {"sum": "mean", "mean": "sum", "max": "min", "min": "max", "exp": "log", "log": "exp", "argmax": "argmin"}
SYMMETRIC = {"max", "min", "maximum", "minimum", "vecdot"}  # of two arguments that may change places

Change = Callable[[ast.AST], ast.AST | None]


class Mutant(NamedTuple):
    """What was changed, and the changed source."""

    what: str
    source: str


def mutants(source: str, count: int, seed: int = 0) -> list[Mutant]:
    """Up to `count` different mutants, drawn at random from all that differ in one place."""
    tree = ast.parse(source)
    original = ast.unparse(tree)
    every: dict[str, str] = {}
    for what, changed in _every(tree):
        if changed != original:
            every.setdefault(changed, what)
    found = [Mutant(what, changed) for changed, what in every.items()]
    return found if len(found) <= count else random.Random(seed).sample(found, count)


def _every(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(what was changed, source) of each."""
    places = list(ast.walk(tree))
    skipped = {id(inner) for node in places if _is_reshape(node) for inner in ast.walk(node)}  # -1 and -2 mean the same
    for number, node in enumerate(places):
        if isinstance(node, ast.Constant) and id(node) in skipped:
            continue
        for what, change in _changes(node):
            other: ast.AST = copy.deepcopy(tree)
            target = list(ast.walk(other))[number]
            new = change(target)
            if new is not None:
                other = _Replace(target, new).visit(other)
            line = getattr(node, "lineno", 0)
            yield f"line {line}: {what}", ast.unparse(ast.fix_missing_locations(other))


def _is_reshape(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reshape"


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """The slips that this node admits. A change edits its node, or returns another in its place."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            if isinstance(op, ast.MatMult):
                yield f"{ast.unparse(node)} exchanged", lambda n: ast.BinOp(n.right, n.op, n.left)  # type: ignore[attr-defined]
            elif type(op) in OPERATORS:
                yield f"{ast.unparse(node)}: another operator", _set_operator
                yield f"{ast.unparse(right)} left out", lambda n: n.left  # type: ignore[attr-defined]
                if not isinstance(op, ast.Sub | ast.Div):
                    yield f"{ast.unparse(left)} left out", lambda n: n.right  # type: ignore[attr-defined]
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand) if not isinstance(operand, ast.Constant):
            yield f"{ast.unparse(node)} without its sign", lambda n: n.operand  # type: ignore[attr-defined]
        case ast.Compare(ops=[op]) if type(op) in OPERATORS:
            yield f"{ast.unparse(node)}: another comparison", _set_comparison
        case ast.BoolOp():
            yield f"{ast.unparse(node)}: and for or", _set_operator
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as value):
            yield f"{value} one larger", lambda n: ast.Constant(n.value + 1)  # type: ignore[attr-defined]
        case ast.Attribute(attr="T"):
            yield f"{ast.unparse(node)} not transposed", lambda n: n.value  # type: ignore[attr-defined]
        case ast.Call(func=ast.Attribute(attr=name)) if name in NAMES:
            yield f"{NAMES[name]} for {name}", lambda n: _rename(n, NAMES[n.func.attr])  # type: ignore[attr-defined]
        case ast.Call(args=[_, second, *_]) if not isinstance(second, ast.Starred) and _called(node) not in SYMMETRIC:
            yield f"{ast.unparse(node)}: two arguments exchanged", _exchange_arguments
        case ast.Return(value=ast.Tuple(elts=[_, _])):
            pass  # exchanged results have exchanged shapes: too easy
        case ast.AugAssign() | ast.Expr(value=ast.Call()):
            yield f"{ast.unparse(node)} left out", lambda n: ast.Pass()
            if isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
                yield f"{ast.unparse(node)}: another operator", _set_operator


def _set_operator(node: ast.AST) -> None:
    node.op = OPERATORS[type(node.op)]()  # type: ignore[attr-defined]


def _set_comparison(node: ast.AST) -> None:
    node.ops = [OPERATORS[type(node.ops[0])]()]  # type: ignore[attr-defined]


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func).rsplit(".", 1)[-1]


def _exchange_arguments(node: ast.AST) -> None:
    node.args[:2] = reversed(node.args[:2])  # type: ignore[attr-defined]


def _rename(node: ast.AST, name: str) -> None:
    node.func.attr = name  # type: ignore[attr-defined]
