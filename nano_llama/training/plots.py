"""Pictures of metrics.jsonl: of one run (loss.png in its folder), of several
beside each other (`nano-llama runs`), and of settings on the same seeds (`nano-llama compare`).

How they look: core/figures.py. Tests: tests/training/test_plots.py.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from nano_llama.core.figures import (
    BLUE,
    COLORS,
    GREY,
    ORANGE,
    blank,
    count_ticks,
    ink,
    legend_above,
    log_ticks,
    look,
    number_text,
    save,
)
from nano_llama.core.units import shortened_text
from nano_llama.core.vision.config import ModelConfig, VisionLanguageConfig, language_config
from nano_llama.training.comparison import Comparison
from nano_llama.training.metrics import best_of
from nano_llama.training.settings import TrainSettings

Rows = Sequence[Mapping[str, Any]]
Points = list[tuple[float, float]]

MAX_POINTS = 1000  # more could not be told apart, and would be slow to draw
FEW_POINTS = 12
NAME_LETTERS = 24  # of a setting's name
LEGEND_LETTERS = 130  # across the whole picture
EARLY = 0.05  # fraction of a run whose steep fall need not fit into the picture


def title_of(parameters: int, settings: TrainSettings) -> str:
    """What a run's picture is of. parameters: of the whole model."""
    return f"{Path(settings.data).name}: {parameters:,} parameters"


def made_how(config: ModelConfig, settings: TrainSettings) -> list[str]:
    """How a run was made, in the parts of a caption, its seed last."""
    of_step = f"B = {settings.batch_size}, T = {settings.context}"
    if settings.accumulate > 1:
        of_step += f", {settings.accumulate} batches per step"
    shape = language_config(config).shape_text.partition(": ")[2]  # without its parameters: the title has the whole's
    eyes = [f"encoder: {config.vision_config.shape_text}"] if isinstance(config, VisionLanguageConfig) else []
    return [shape, *eyes, of_step, f"{settings.optimizer} at {settings.lr:g}", f"seed {settings.seed}"]


def plot_run(rows: Rows, path: str | Path, title: str = "", caption: str = "", *, dark: bool = False) -> None:
    """Draw one run's rows (metrics.py) as 1500 x 1050 pixels: the loss, and below it what explains its course.

    path: .png or .svg. The file is replaced atomically. In a long run, every point is the mean of several lines.
    """
    _save(lambda: _figure_of_run(rows, title), path, caption, dark)


def plot_runs(
    runs: Iterable[tuple[str, Rows]], path: str | Path, caption: str = "", *, in_bytes: bool = False, dark: bool = False
) -> None:
    """Draw several runs as 1800 x 900 pixels: validation loss (dashed: training) by tokens and by time.

    runs: (name, rows). A run without a validation loss is shown by its training loss alone. in_bytes: in bits per byte
    instead of nats per token, which compares runs of different tokenizers.
    """
    _save(lambda: _figure_of_runs(list(runs), in_bytes), path, caption, dark)


def plot_comparison(
    comparison: Comparison,
    curves: Mapping[str, Sequence[Rows]],
    path: str | Path,
    caption: str = "",
    *,
    in_bytes: bool = False,
    dark: bool = False,
) -> None:
    """Draw settings as 1650 x 825 pixels: every run's validation loss, and the lowest of each with bars.

    curves: name -> the rows of its runs, seed by seed.
    """
    _save(lambda: _figure_of_comparison(comparison, curves, in_bytes), path, caption, dark)


def _save(draw: Callable[[], Any], path: str | Path, caption: str, dark: bool) -> None:
    """The figure that `draw` makes, in the project's look."""
    with look(dark):
        save(draw(), Path(path), caption)


def _figure_of_run(rows: Rows, title: str) -> Any:
    figure, (loss, lr, norm, speed) = _panels([["loss"] * 3, ["lr", "norm", "speed"]], (10, 7), ratio=(1.7, 1))
    train, validation = points(rows, "step", "train_loss"), points(rows, "step", "val_loss")
    if train:
        _draw(loss, thinned(train), color=BLUE, linewidth=1, alpha=0.85, label="training")
    if validation:
        label = f"validation: {validation[-1][1]:.4f}"
        _draw(loss, validation, color=ORANGE, marker="o", label=label)
        best = best_of(rows)
        if best["val_loss"] < validation[-1][1]:
            lowest = [(best["step"], best["val_loss"])]
            label = f"lowest: {best['val_loss']:.4f} at step {best['step']:,}"
            _draw(loss, lowest, color=ink(), marker="*", markersize=11, linestyle="none", label=label)
    if train or validation:
        loss.legend()
        _cut_off_first_fall(loss, train, validation)
    loss.set(xlabel="step", ylabel="loss (nats per token)", title=title)
    for axes, name, label in (
        (lr, "lr", "learning rate"),
        (norm, "grad_norm", "gradient norm, before clipping"),
        (speed, "tokens_per_second", "speed (tokens/s)"),
    ):
        curve = points(rows, "step", name)
        _draw(axes, thinned(curve), color=BLUE, linewidth=1)
        axes.set(xlabel="step", title=label)
        axes.margins(y=0.1)
        if not (axes is norm and _log_scale_if_wide(norm, [y for _, y in curve])):
            axes.set_ylim(bottom=0)
    count_ticks(*figure.axes)
    _short_numbers(lr, speed)
    _from_zero(figure)
    return figure


def _figure_of_runs(named: Sequence[tuple[str, Rows]], in_bytes: bool) -> Any:
    what, unit_of_loss = ("bits_per_byte", "bits per byte") if in_bytes else ("loss", "loss (nats per token)")
    minutes = max((row.get("elapsed_s", 0.0) for _, rows in named for row in rows), default=0.0) >= 300
    trains: Points = []
    validations: Points = []
    figure, (by_tokens, by_time) = _panels([["tokens", "time"]], (12, 6))
    for index, (name, rows) in enumerate(named):
        for axes, key, unit in ((by_tokens, "tokens", 1.0), (by_time, "elapsed_s", 60.0 if minutes else 1.0)):
            style: dict[str, Any] = {"color": f"C{index % 10}", "linestyle": "-" if index < 10 else "-."}
            train = [(x / unit, y) for x, y in points(rows, key, f"train_{what}")]
            validation = [(x / unit, y) for x, y in points(rows, key, f"val_{what}")]
            faint = {**style, "linestyle": "--", "linewidth": 0.8, "alpha": 0.35 if validation else 0.9}
            _draw(axes, thinned(train, 300), label=None if validation else name, **faint)
            _draw(axes, validation, marker="o", label=name, **style)
            if key == "tokens":
                trains, validations = trains + train, validations + validation
    for axes, label in ((by_tokens, "tokens seen"), (by_time, "minutes" if minutes else "seconds")):
        axes.set(xlabel=label, ylabel=unit_of_loss)
        _cut_off_first_fall(axes, trains, validations)
    if by_time.get_legend_handles_labels()[0]:
        widest = max(len(name) for name, _ in named)
        columns = max(1, LEGEND_LETTERS // (widest + 6))
        legend_above(figure, by_time, columns, title="solid: validation loss, dashed: training loss")
    count_ticks(by_tokens, by_time)
    _from_zero(figure)
    return figure


def _figure_of_comparison(comparison: Comparison, curves: Mapping[str, Sequence[Rows]], in_bytes: bool) -> Any:
    what = "val_bits_per_byte" if in_bytes else "val_loss"
    figure, (course, ends) = _panels([["course", "ends"]], (11, 5.5))
    styles = {name: {"color": COLORS[place % 9], "ls": "-" if place < 9 else "-."} for place, name in enumerate(curves)}
    for name, runs in curves.items():
        for number, rows in enumerate(runs):
            label = shortened_text(name, NAME_LETTERS) if number == 0 else None
            _draw(course, points(rows, "tokens", what), linewidth=1, marker=".", label=label, **styles[name])
    shown = comparison.names  # as they were given: a sweep has an order of its own
    for of_seed in zip(*(comparison.losses[name] for name in shown), strict=True):
        ends.plot(range(len(shown)), of_seed, color=GREY, alpha=0.5, linewidth=0.8)
    for place, name in enumerate(shown):
        color, estimate = styles[name]["color"], comparison.estimate(name)
        ends.plot([place] * comparison.num_seeds, comparison.losses[name], ".", color=color)
        aside = place + (-0.12 if place == 0 else 0.12)
        ends.errorbar(aside, estimate.mean, estimate.margin, fmt="o", color=color, capsize=5, markersize=5)
    course.set(xlabel="tokens seen", ylabel=f"validation loss ({comparison.unit})", title="each run")
    course.legend()
    ends.set(ylabel=f"lowest validation loss ({comparison.unit})")
    ends.set_title("mean and 95% interval; a line joins the runs of a seed", fontsize=10.5)
    figure.suptitle("\n".join(wrap(comparison.sentence, 100)), fontsize=10.5)
    count_ticks(course)
    course.set_xlim(left=0)
    ends.set_xticks(range(len(shown)), [shortened_text(name, NAME_LETTERS) for name in shown])
    if len(shown) > 2:
        for label in ends.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")  # each ends below its own tick
    ends.set_xlim(-0.5, len(shown) - 0.5)
    return figure


def points(rows: Rows, x: str, y: str) -> Points:
    """The rows that have both values, as points."""
    return [(row[x], row[y]) for row in rows if x in row and y in row]


def thinned(curve: Points, limit: int = MAX_POINTS) -> Points:
    """At most `limit` points, each the mean of as many neighbors as needed. The last lies at the curve's end."""
    size = -(-len(curve) // limit)
    if size <= 1:
        return curve
    groups = [curve[begin : begin + size] for begin in range(0, len(curve), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _draw(axes: Any, curve: Points, **style: Any) -> None:
    """A line; a few points are dots too, so that nobody takes the line between two for a measurement."""
    if curve:
        axes.plot(*zip(*curve, strict=True), **({"marker": "."} if len(curve) <= FEW_POINTS else {}) | style)


def _cut_off_first_fall(axes: Any, train: Points, validation: Points) -> None:
    """The loss starts at ln V and falls at once; the rest would be a flat line at the bottom of the picture."""
    if len(train) < 20:
        return
    end = max(x for x, _ in train)
    later = [y for x, y in train if x >= EARLY * end] + [y for _, y in validation]
    low, high = min(later), max(later)
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low) + 1e-6)


def _log_scale_if_wide(axes: Any, values: Sequence[float]) -> bool:
    """Whether it is one now."""
    wide = bool(values) and min(values) > 0 and max(values) > 10 * min(values)
    if wide:
        axes.set_yscale("log")
        log_ticks(axes.yaxis)
    return wide


def _short_numbers(*panels: Any) -> None:
    """0.002 and 20,000 on the y axes, whatever they hold."""
    from matplotlib.ticker import FuncFormatter

    for axes in panels:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: number_text(value)))


def _panels(mosaic: Any, size: tuple[float, float], ratio: Sequence[float] | None = None) -> Any:
    """A figure and its panels, in the order of their first appearance in the mosaic."""
    figure = blank(*size)
    return figure, list(figure.subplot_mosaic(mosaic, height_ratios=ratio).values())


def _from_zero(figure: Any) -> None:
    for axes in figure.axes:
        axes.set_xlim(left=0)  # last, because from now on the axis is no longer autoscaled
