"""Formulas for a terminal: nothing of TeX is left in any statement or hint."""

import pytest

from nano_llama.learn import exercises
from nano_llama.learn.plain_text import plain
from nano_llama.learn.workshop import starting_text


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        (r"$\frac{a+b}{n}$", "(a+b)/n"),
        (r"$\frac{1}{\sqrt{d_{k}}}$", "1/√(d_k)"),
        (r"$\frac{c_{ab}}{c_a} + \frac{h^2}{2h}$", "c_ab/c_a + h^2/(2h)"),
        (r"$z = c \tanh \frac{x}{c}$, $x W^\top$", "z = c tanh(x/c), x Wᵀ"),
        (r"so $x_{ij}^{2}$ and $r^{-1/2}$", "so x_ij^2 and r^(-1/2)"),
        (r"$\left( \sum_j e^{x_j} \right)$", "( Σ_j e^(x_j) )"),
        (r"$\log P(a \mid b)$, $\{a\}$", "log P(a | b), {a}"),
        (r"$$ a \, b \quad c $$", "    a b   c"),
        ("no formula, 5 dollars", "no formula, 5 dollars"),
    ],
)
def test_formulas(markdown, text):
    assert plain(markdown) == text


@pytest.mark.parametrize("one", exercises(), ids=lambda one: one.name)
def test_no_tex_is_left(one):
    for text in map(plain, (one.statement, *one.hints)):
        assert not set("\\$") & set(text), text
    compile(starting_text(one), one.name, "exec")
    assert max(map(len, starting_text(one).splitlines())) <= 120
