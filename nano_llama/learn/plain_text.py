r"""Statements for a terminal: Markdown stays as it is, formulas lose their TeX.

    "$\\frac{a+b}{n}$"  ->  "(a+b)/n"

Only what our statements use is known; tests/learn/test_plain_text.py holds that nothing of TeX is left in any of them.
"""

import re
import textwrap

SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "varepsilon": "ε", "lambda": "λ", "tau": "τ",
    "sigma": "σ", "theta": "θ", "omega": "ω", "mu": "μ", "sum": "Σ", "prod": "Π", "partial": "∂", "infty": "∞",
    "to": "->", "in": "∈", "le": "<=", "ge": ">=", "ne": "≠", "approx": "≈", "cdot": "·", "times": "×", "odot": "⊙",
    "dots": "...", "ldots": "...", "cdots": "...", "quad": "  ", "qquad": "   ", "mid": "|", "prime": "'", "ell": "l",
    "log": "log", "ln": "ln", "exp": "exp", "max": "max", "min": "min", "tanh": "tanh", "cos": "cos", "sin": "sin",
    "arg": "arg", "eta": "η", "left": "",
    "right": "", "big": "", "Big": "", "pi": "π", "varsigma": "ς", "sim": "~", "leftarrow": "<-", "varphi": "φ",
    "lfloor": "floor(", "rfloor": ")", "lceil": "ceil(", "rceil": ")", "ast": "*",
}  # fmt: skip
ACCENTS = {"hat": "\u0302", "tilde": "\u0303", "bar": "\u0304"}  # combining characters, behind the letter
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.S)
_GROUP = r"√?\([^()]*\)|\|\w*\|"  # a root, what is in parentheses, a size
_IN_POWER = re.compile(rf"[^\W_]*'?|{_GROUP}")
_IN_FRACTION = re.compile(rf"\d+|[^\W\d_](?:_\w+)?(?:\^\w+)?'?|[^\W\d_]+|{_GROUP}")  # not 2h: 1/2h could be read twice


def plain(markdown: str) -> str:
    """The text with its formulas in plain characters; those on lines of their own are indented."""
    return _FORMULA.sub(lambda found: f"    {_formula(found[1])}" if found[1] else _formula(found[2]), markdown)


def wrapped(markdown: str, width: int = 110) -> str:
    """The same, its paragraphs filled to a width; what is indented stays as it is."""
    paragraphs = plain(markdown).split("\n\n")
    return "\n\n".join(
        part if part.startswith("    ") else textwrap.fill(part, width, break_long_words=False, break_on_hyphens=False)
        for part in paragraphs
    )


def _formula(tex: str) -> str:
    text = " ".join(tex.split())
    text = re.sub(r"\\(?:mathrm|text|texttt|mathbb|mathbf|mathcal|operatorname)\{([^{}]*)\}", r"\1", text)
    text = text.replace(r"^\top", "ᵀ")
    text = re.sub(r"\\(hat|tilde|bar)(?:\{(\\?\w+)\}|(\\[a-z]+))", lambda m: (m[2] or m[3]) + ACCENTS[m[1]], text)
    text = re.sub(r"\\(tanh|exp|log|ln) *(\\frac(?:\{[^{}]*\}){2})", r"\\\1(\2)", text)
    text = re.sub(r" ?\\[,;:! ] ?", " ", text).replace(r"\{", "⦃").replace(r"\}", "⦄").replace(r"\|", "|")
    before = None
    while before != text:  # innermost braces first
        before = text
        text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", lambda m: f"{_part(m[1])}/{_part(m[2])}", text)
        text = re.sub(r"\\sqrt\{([^{}]*)\}", r"√(\1)", text)
        text = re.sub(
            r"([_^])\{([^{}]*)\}", lambda m: m[1] + (_part(m[2], _IN_POWER) if m[1] == "^" else _index(m[2])), text
        )
    text = re.sub(r"\\([a-zA-Z]+)", lambda m: SYMBOLS.get(m[1], m[0]), text)
    return re.sub(r" {4,}", "   ", text).replace("⦃", "{").replace("⦄", "}").strip()


def _index(text: str) -> str:
    return text if re.fullmatch(r"[\w']*", text) else f"({text})"


def _part(text: str, simple: re.Pattern[str] = _IN_FRACTION) -> str:
    """In parentheses, unless it is one thing."""
    text = text.strip()
    return text if simple.fullmatch(text) else f"({text})"
