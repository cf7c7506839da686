"""loss.png: the training and validation loss of a run over its steps.

Not here: the numbers (metrics.py). Drawn without pyplot, which would keep global state and open a display.
Tests: tests/core/training/test_plots.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nano_llama.core import files


def plot_loss(rows: Sequence[Mapping[str, Any]], path: str | Path, title: str = "") -> None:
    """Draw the rows of a metrics.jsonl (metrics.py) as a PNG of 1200 x 750 pixels. It appears whole."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    train = [(row["step"], row["train_loss"]) for row in rows if "train_loss" in row]
    validation = [(row["step"], row["val_loss"]) for row in rows if "val_loss" in row]
    if train:
        axes.plot(*zip(*train, strict=True), color="tab:blue", linewidth=1, alpha=0.8, label="training")
    if validation:
        label = f"validation, last {validation[-1][1]:.4f}"
        axes.plot(*zip(*validation, strict=True), color="tab:orange", marker="o", markersize=4, label=label)
    if train or validation:
        axes.legend(frameon=False)
    axes.set(xlabel="step", ylabel="loss (nats a token)", title=title)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    with files.atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
