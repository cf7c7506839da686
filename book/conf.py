"""The book's build: `make book` writes the site to book/_build/html. How to write a chapter: README.md beside this."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # the extensions, and the package as it stands here

project = "One LLaMA, No Black Box"
author = "The nano-llama-engine authors"
project_copyright = author
language = "en"

extensions = ["myst_parser", "sphinx.ext.githubpages"]
extensions += [
    f"_ext.{name}"
    for name in (
        "facts", "formulas", "sources", "derive", "cells", "cell_output", "traces", "river", "exercises", "errata",
        "indexes", "shares", "site",
    )
]  # fmt: skip
exclude_patterns = ["_build", "_ext", "node_modules", "README.md"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_dmath_double_inline = False
numfig = True
math_numfig = True
math_eqref_format = "equation ({number})"

html_theme = "furo"
html_title = project
html_math_renderer = "temml"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = [("book.js", {"defer": "defer"})]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
highlight_language = "none"  # of blocks in text; cells and quoted code are highlighted by our extensions
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

# Shares that _ext/shares.py prints and holds the book to; bookkeeping is an upper bound.
book_bars = {"backward": 1.0, "bookkeeping": 0.20, "formulas": 0.95, "numbers": 0.98}
# Every backward pass and update of these modules stands beside an equation ...
book_covers = [f"nano_llama/vol1_numpy/{part}" for part in ("ops/*.py", "optim/*.py", "layer.py", "model.py")]
# ... but for those that belong to a later volume.
book_later = {
    f"nano_llama/vol1_numpy/ops/{name}.py": where
    for name, where in {
        "adapted_linear": "fine-tuning, Volume 2",
        "affine": "the image encoder, Volume 3",
        "dora_linear": "fine-tuning, Volume 2",
        "dropout": "training in PyTorch, Volume 2",
        "frozen_linear": "fine-tuning, Volume 2",
        "gated": "an activation that is chosen, Volume 2",
        "gelu": "the image encoder, Volume 3",
        "lora_linear": "fine-tuning, Volume 2",
        "relu": "an activation that is chosen, Volume 2",
    }.items()
}
