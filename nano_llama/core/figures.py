"""How every figure of the project looks: colours in light and dark, panels, ticks, a caption; and saving one.

    with look(dark=True):
        figure, (left, right) = panels(["one", "the other"])
        left.plot(x, y, color=BLUE)
        save(figure, Path("picture.svg"), "of what model, of which shapes, from which seed")

Made without pyplot, which would keep figures in the process and could open a window. Letters are large enough for a
slide. A colour is a place in the cycle of `look`, so that drawing code is the same in light and dark.
Tests: tests/core/test_figures.py.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from textwrap import wrap
from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.core.files import atomic_path

COLORS = BLUE, ORANGE, GREEN, RED, PURPLE, TEAL, PINK, BROWN, OLIVE, GREY = [f"C{place}" for place in range(10)]
# Each stands out from its ground by at least 3 to 1, as WCAG 2.2 asks of graphics (its success criterion 1.4.11).
ON_LIGHT = (
    "#2166ac",
    "#cf6a00",
    "#1b7837",
    "#b2182b",
    "#762a83",
    "#1f8a84",
    "#d0459a",
    "#8c510a",
    "#858500",
    "#6b6b6b",
)
ON_DARK = ("#6cb0f0", "#f5a742", "#6cc784", "#f2766f", "#c79be8", "#6fd0c5", "#f2a1c8", "#c8a06a", "#d5d56a", "#a3a3a3")
WIDTH, HEIGHT = 4.8, 3.9  # inches of a panel
FORMATS: dict[str, dict[str, Any]] = {  # by the name's ending; without a date, the same figure is the same file
    ".png": {"format": "png"},
    ".svg": {"format": "svg", "metadata": {"Date": None}},
}
CAPTION_LETTERS = 14  # of an inch
DECADE = (1, 2, 5)  # what is written of each power of ten


def look(dark: bool = False) -> AbstractContextManager[None]:
    """While entered, figures are drawn and saved in this project's style: dark on white, or light on black."""
    from cycler import cycler
    from matplotlib import rc_context

    ink, ground, lines = ("white", "black", "#666666") if dark else ("black", "white", "#bbbbbb")
    return rc_context({
        "figure.facecolor": ground, "axes.facecolor": ground, "savefig.facecolor": ground, "text.color": ink,
        "axes.labelcolor": ink, "axes.edgecolor": ink, "xtick.color": ink, "ytick.color": ink, "grid.color": lines,
        "axes.prop_cycle": cycler(color=ON_DARK if dark else ON_LIGHT), "axes.grid": True, "axes.axisbelow": True,
        "grid.alpha": 0.5, "grid.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False,
        "font.size": 10, "axes.titlesize": 11.5, "axes.labelsize": 10.5, "xtick.labelsize": 9.5, "ytick.labelsize": 9.5,
        "legend.fontsize": 9.5, "legend.title_fontsize": 9.5, "legend.frameon": False, "lines.linewidth": 1.5,
        "lines.markersize": 4, "svg.hashsalt": "nano-llama",
    })  # fmt: skip


def ink() -> str:
    """The colour of text, for what is neither side of a comparison."""
    import matplotlib

    return str(matplotlib.rcParams["text.color"])


def blank(width: float, height: float, dpi: int = 150) -> Any:
    """A figure without panels; inches, and pixels of an inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(
    titles: Sequence[str], columns: int | None = None, width: float = WIDTH, height: float = HEIGHT, dpi: int = 150
) -> tuple[Any, list]:
    """A figure with one panel per title, `columns` of them in a row (default: all). -> figure, list of axes"""
    columns = columns or len(titles)
    rows = -(-len(titles) // columns)
    figure = blank(width * columns, height * rows, dpi)
    axes = [figure.add_subplot(rows, columns, place) for place in range(1, len(titles) + 1)]
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    return figure, axes


def count_ticks(*axes: Any) -> None:
    """Whole numbers on the x axis, where it counts layers, steps or tokens: there is no step 1.5."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k, 1.5M


def log_ticks(*axes: Any) -> None:
    """Numbers as people write them on an axis in logarithms: 0.5, 1, 2 or 10,000, and at least two of them.

    `axes`: ax.xaxis or ax.yaxis, when all is drawn. Powers of ten alone, where there are many.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for axis in axes:
        low, high = axis.get_view_interval()
        ratio = high / low
        if ratio < 4:  # 1, 2, 5 might be one tick, or none
            axis.set_major_locator(MaxNLocator(5))
        else:
            axis.set_major_locator(LogLocator(subs=DECADE if ratio < 100 else (1,), numticks=12))
        axis.set_major_formatter(FuncFormatter(lambda value, place: number_text(value)))
        axis.set_minor_formatter(NullFormatter())


def number_text(value: float) -> str:
    """ "0.05", "20,000", or beyond what is read at a glance "2e-07"."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def legend_above(figure: Any, ax: Any, columns: int = 3, title: str | None = None) -> None:
    """The legend of `ax` for all panels, above them, where it covers nothing."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, title=title)


def save(figure: Any, picture: Path, caption: str) -> None:
    """Write the figure, whole or not at all, as its name's ending says. Raises EnvironmentFault where that fails, and
    UserError for another ending.

    caption: of what it is, so that it can stand on a slide: the model, its shapes, the seed.
    """
    lines = wrap(caption, int(CAPTION_LETTERS * figure.get_figwidth()))
    figure.supxlabel("\n".join(lines), fontsize=9, color=GREY)
    if picture.suffix not in FORMATS:
        raise UserError(
            f"{picture}: a picture is a {' or a '.join(FORMATS)}.", hint="Give its name one of the endings."
        )
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, **FORMATS[picture.suffix])
