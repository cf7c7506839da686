"""The shares count what they say, and a book below a bar is not built."""

import sys

import pytest

from helpers.prose import ROOT

pytestmark = pytest.mark.book
sys.path.insert(0, str(ROOT / "book"))
DATA = '{"$$x^2$$": "<math></math>"}'


def test_a_formula_that_nothing_executes_ends_the_build(book):
    for _ in range(2):  # what has failed is not taken for done
        built = book({"chapters/one": "# One\n\n$$\nx^2\n$$ (eq-square)\n", "formulas.json": DATA})
        assert built.code != 0
        assert "displayed formulas that are executed: 0 of 1" in built.said and "eq-square" in built.said


def test_a_typed_number_ends_the_build(book):
    built = book(
        {"chapters/one": "# One\n\nThe loss was 3.14 nats in 1948, says chapter 3 (arXiv 1910.07467, section 4).\n"}
    )
    assert built.code != 0
    assert "not so: chapters/one: 3.14" in built.said and "1948" not in built.said.split("not so", 1)[1]


@pytest.mark.parametrize(
    ("prose", "numbers"),
    [
        ("The model of `12` layers, in float32 and UTF-8.", []),
        ("Needs 1,024 tokens or 0.5 GB.", ["1,024", "0.5"]),
        ("In 2019, issue 51, #93 and Chapters 4 to 6.", []),
        ("A vocabulary of 2048 tokens.", ["2048"]),
        ("See [page 12](https://example.org/12).", []),
    ],
)
def test_which_numbers_count(book, prose, numbers):
    built = book({"chapters/one": f"# One\n\n{prose}\n"})
    assert f"numbers in prose from a run: 0 of {len(numbers)}" in built.said, built.said
    for number in numbers:
        assert f"not so: chapters/one: {number}" in built.said


def test_every_arithmetic_statement_of_a_quoted_backward_counts(book):
    quote = "# One\n\n```{source} nano_llama.vol1_numpy.ops.linear:linear_backward\n```\n"
    built = book({"chapters/one": quote})
    assert built.code != 0
    assert "beside an equation or marked: 0 of 2" in built.said


def test_an_update_counts_whether_it_is_quoted_or_not(book):
    built = book({"chapters/one": "# One\n"}, "-D", "book_covers=nano_llama/vol1_numpy/optim/sgd.py")
    assert built.code != 0
    assert "beside an equation or marked: 0 of 1" in built.said and "optim/sgd.py" in built.said


def test_what_is_taught_later_must_be_there():
    from _ext.facts import BookError
    from _ext.shares import modules

    covers, linear = ("nano_llama/vol1_numpy/ops/lora_*.py",), "nano_llama/vol1_numpy/ops/linear.py"
    assert modules(covers, {}, {linear, "nano_llama/core/loss.py"}) == [
        linear, "nano_llama/vol1_numpy/ops/lora_linear.py",
    ]  # fmt: skip
    with pytest.raises(BookError, match=r"ops/gone\.py"):
        modules(covers, {"nano_llama/vol1_numpy/ops/gone.py": "never"}, set())


def test_what_an_optimizer_keeps_is_not_an_update():
    from _ext.shares import computes

    optim, model = "nano_llama/vol1_numpy/optim/adam.py", "nano_llama/vol1_numpy/model.py"
    assert computes(optim, "update") and computes(optim, "direction") and not computes(optim, "__init__")
    assert computes(model, "_one") and computes(model, "layer_backward") and not computes(model, "logits")


def test_bookkeeping_is_limited(book):
    mark = """# One

```{bookkeeping} nano_llama.vol1_numpy.ops.linear:linear_backward
dx = dy_rows @ weight
return dx.reshape(*dy.shape[:-1], weight.shape[1]), dy_rows.T @ x
```
"""
    built = book({"chapters/one": mark})
    assert built.code != 0
    assert "2 of 2 backward statements are marked as bookkeeping" in built.said


def test_what_is_arithmetic():
    import ast

    from _ext.shares import is_arithmetic

    yes = ["y = a @ b", "y *= 2", "y = np.exp(x)", "return dx, np.sum(dy, axis=0)", "np.add.at(y, i, x)"]
    no = ["x, r, weight = cache", "x = x.reshape(-1, 3)", "'''text'''", "assert kept, 'used up'", "return dx"]
    no += ["grads |= more"]
    assert all(is_arithmetic(ast.parse(code).body[0]) for code in yes)
    assert not any(is_arithmetic(ast.parse(code).body[0]) for code in no)
