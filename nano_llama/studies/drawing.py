"""The common style of the studies' pictures, and saving one.

Figures are made without pyplot: it would keep state in the process and could open a window.
Tests: tests/studies/test_registry.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nano_llama.core.files import atomic_path

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#2166ac", "#e08214", "#1b7837", "#b2182b", "#762a83", "#888888"


def panels(
    titles: Sequence[str], columns: int | None = None, width: float = 4.6, height: float = 3.7
) -> tuple[Any, list]:
    """A figure with one panel per title, `columns` of them in a row (default: all). -> figure, list of axes"""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = columns or len(titles)
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, place) for place in range(1, len(titles) + 1)]
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=10)
        ax.tick_params(which="both", labelsize=8)
        ax.grid(True, alpha=0.25, linewidth=0.6)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    return figure, axes


def count_ticks(*axes: Any) -> None:
    """Whole numbers on the x axis, where it counts layers or steps."""
    from matplotlib.ticker import MaxNLocator

    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def ink() -> str:
    """The colour of text: black, or white where the picture is dark."""
    import matplotlib

    return str(matplotlib.rcParams["text.color"])


def save(figure: Any, picture: Path, caption: str) -> None:
    """Write the figure, whole or not at all, in the format of its name's ending. Raises EnvironmentFault where that
    fails.

    caption: of what it is, so that it can stand on a slide: the model, its shapes, the seed.
    """
    figure.supxlabel(caption, fontsize=8, color=GREY)
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format=picture.suffix.removeprefix("."))
