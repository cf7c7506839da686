"""What `generate --show-probabilities` adds: colours by surprisal, a table with a line per token, the same as JSON.

The probabilities are the engine's logprobs, of the model's own distribution: before penalties, temperature, top-k,
top-p and min-p (core/sampling/params.py). Tests: tests/cli/test_probabilities.py.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nano_llama.cli.common import Screen, has_colours, printable
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.outputs import Logprob

if TYPE_CHECKING:
    from nano_llama.tokenizer import Tokenizer

Entries = Mapping[int, Logprob]  # of one token: itself first, then the likeliest

ALTERNATIVES = 5  # beside each token
NUM_LOGPROBS = ALTERNATIVES + 1  # the token itself may be among the likeliest
WIDEST_TOKEN = 16  # columns; the rest of a longer one stands on the next line
GAP = "  "
SIGNS = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})  # as on the server's page
# Bits of surprisal from which on a token has a colour: dark on ever deeper orange, legible on black and on white.
INK = "#22160c"
TINTS = {1.0: "#fbead9", 2.5: "#f4cfa8", 5.0: "#ffb347", 7.5: "#e0812f"}


def bits(logprob: float) -> float:
    """Surprisal: -log2 p."""
    return max(0.0, -logprob / math.log(2))


def tint(entries: Sequence[Entries] | None) -> str | None:
    """The style of a piece of text, by the most surprising of its tokens; None: as other text."""
    found = max((bits(chosen(each)[1].logprob) for each in entries or ()), default=0.0)
    reached = [colour for least, colour in TINTS.items() if found >= least]
    return f"{INK} on {reached[-1]}" if reached else None


def chosen(entries: Entries) -> tuple[int, Logprob]:
    """The token that was taken, with its logprob."""
    return next(iter(entries.items()))


def alternatives(entries: Entries) -> list[tuple[int, Logprob]]:
    """The likeliest of the other tokens, in their order."""
    return sorted(list(entries.items())[1:], key=lambda item: item[1].rank)[:ALTERNATIVES]


def probabilities_json(tokenizer: "Tokenizer", tokens: Sequence[Entries]) -> list[dict[str, Any]]:
    """For --json: an object per token, with its alternatives."""

    def described(token: int, entry: Logprob) -> dict[str, Any]:
        return {
            "id": token,
            "token": entry.decoded_token,
            "bytes": list(tokenizer.token_bytes(token)),
            "probability": math.exp(entry.logprob),
            "logprob": entry.logprob,
            "rank": entry.rank,
        }

    return [
        {**described(*chosen(each)), "alternatives": [described(*item) for item in alternatives(each)]}
        for each in tokens
    ]


def probability_table(
    screen: Screen, tokenizer: "Tokenizer", tokens: Sequence[Entries], params: SamplingParams
) -> list[RenderableType]:
    """What is printed below the text: a line per token with as many alternatives as fit into it, and what p is."""
    coloured = has_colours(screen.out)
    names = [token_name(tokenizer, chosen(each)[0]) for each in tokens]
    widest = min(max(map(cell_len, ["token", *names])), WIDEST_TOKEN)
    room = screen.out.width - widest - len("100.0%" + "99.9") - 3 * len(GAP)
    grid = Table(box=None, pad_edge=False, header_style="cyan", padding=(0, len(GAP), 0, 0))
    grid.add_column("token", width=widest, overflow="fold")
    grid.add_column("p", width=len("100.0%"), justify="right")
    grid.add_column("bits", width=len("99.9"), justify="right")
    grid.add_column("likeliest other tokens", no_wrap=True, overflow="ellipsis")
    cut = False
    for name, each in zip(names, tokens, strict=True):
        logprob = chosen(each)[1].logprob
        others = [f"{token_name(tokenizer, token)} {percent(entry.logprob)}" for token, entry in alternatives(each)]
        fitting = fit(others, room)
        cut |= len(fitting) < len(others)
        style = (tint([each]) or "") if coloured else ""
        grid.add_row(Text.assemble((name, style)), percent(logprob), f"{bits(logprob):.1f}", Text(GAP.join(fitting)))
    shown: list[RenderableType] = ["", grid, "", distribution(params)]
    if coloured:
        shown[1:1] = [legend(), ""]
    if cut:
        shown.append(f"A wider screen shows more of the {ALTERNATIVES} likeliest others; --json has them all.")
    return shown


def token_name(tokenizer: "Tokenizer", token: int) -> str:
    """Its text, with its spaces and line ends to be seen; of a part of a character its bytes."""
    text = tokenizer.token_bytes(token).decode(errors="backslashreplace")
    return printable(text.translate(SIGNS)) or "∅"


def percent(logprob: float) -> str:
    """As the server's page writes them: a second decimal below 1%. Only what is certain is 100%."""
    p = math.exp(logprob)
    if 0 < p < 0.0001:
        return "<0.01%"
    return ">99.9%" if 0.9995 <= p < 1 else f"{p:.{1 if p >= 0.01 else 2}%}"


def fit(entries: Sequence[str], room: int) -> list[str]:
    """As many of the first entries as fit into so many columns, with gaps between them; at least one."""
    fitting: list[str] = []
    for entry in entries:
        room -= cell_len(entry) + (len(GAP) if fitting else 0)
        if room < 0 and fitting:
            break
        fitting.append(entry)
    return fitting


def distribution(params: SamplingParams) -> str:
    """Which distribution p is of, and what came after it, in words."""
    changes = [
        f"{name} {value:g}"
        for name, value, off in (
            ("repetition penalty", params.repetition_penalty, 1), ("temperature", params.temperature, 1),
            ("min-p", params.min_p, 0), ("top-k", max(params.top_k, 0), 0), ("top-p", params.top_p, 1),
        )
        if value != off and (name == "repetition penalty" or not params.is_greedy)
    ]  # fmt: skip
    named = " and ".join(filter(None, [", ".join(changes[:-1]), *changes[-1:]]))
    then = f", before {named} changed it" if changes else ", with which it was drawn"
    if params.is_greedy:
        then = f", before {named}" * bool(changes) + "; each time the likeliest was taken"
    return f"p: the model's own probability of the token{then}. bits: -log2 p, its surprisal."


def legend() -> Text:
    """What the colours mean."""
    parts = [(f" {least:g} or more ", f"{INK} on {colour}") for least, colour in TINTS.items()]
    return Text.assemble(("surprisal in bits: ", "dim"), *parts)
