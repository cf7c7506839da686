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


def save(figure: Any, picture: Path) -> None:
    """Write the figure as PNG, whole or not at all. Raises EnvironmentFault where that fails."""
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format="png")
