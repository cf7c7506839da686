"""The index of equations names the line that computes each, and the cell that checks it."""

import pytest

pytestmark = pytest.mark.book
PAGE = """# One

$$
x^2
$$ (eq-square)

```{cell} squares
:checks: eq-square
assert 3**2 == 9
```

```{derive} eq-square
:in: nano_llama.core.loss:bits_per_byte

return nats_per_token * tokens / (math.log(2.0) * max(num_bytes, 1))
```
"""


def test_each_equation_has_its_number_code_and_cell(book):
    pages = {"chapters/one": PAGE, "all": "# All\n\n```{equations}\n```\n"}
    built = book({**pages, "formulas.json": '{"$$x^2$$": "<math></math>"}'})
    assert built.code == 0, built.said
    page = built.page("all")
    assert 'href="chapters/one.html#equation-eq-square"' in page and "(1.1)" in page
    assert 'href="code/nano_llama/core/loss.py.html#L' in page
    assert 'href="chapters/one.html#cell-squares"' in page
