"""Whether a figure is fit for a slide: what a person who looks at it would miss."""

from typing import Any

from matplotlib.figure import Figure


def watch_figures(monkeypatch) -> list[str]:
    """From now on each figure that is saved is looked at; the list grows by its faults."""
    found: list[str] = []
    savefig = Figure.savefig

    def look_and_save(figure, *arguments, **options):
        found.extend(faults_of(figure))
        return savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", look_and_save)
    return found


def faults_of(figure: Any) -> list[str]:
    """In words; none where all is well. Called while the figure's look is on."""
    figure.canvas.draw()
    found = [f"{text!r} is cut off" for text in _texts(figure) if not _inside(figure, text)]
    if not figure.get_supxlabel():
        found.append("no caption")
    for ax in figure.axes:
        name = ax.get_title() or ax.get_ylabel()
        for side, label, axis in (("x", ax.get_xlabel(), ax.xaxis), ("y", ax.get_ylabel() or ax.get_title(), ax.yaxis)):
            ticks = [text.get_text() for text in axis.get_ticklabels() if text.get_text() and _shown(ax, side, text)]
            words = [tick for tick in ticks if not any(c.isdigit() for c in tick) or "=" in tick]
            if not label and not words:
                found.append(f"{name}: the {side} axis has no label")
            if len(ticks) < 2:
                found.append(f"{name}: the {side} axis has the ticks {ticks}")
            if label in ("step", "layer") and any("." in tick and tick[-1].isdigit() for tick in ticks):
                found.append(f"{name}: {label} {ticks}")
        if astray := _astray(ax):
            found.append(f"{name}: {astray} do not end at their ticks")
        if flat := _flat(ax):
            found.append(f"{name}: {flat} of its lines are drawn flat")
        if covered := _covered(ax):
            found.append(f"{name}: the legend covers {covered} points")
    return found


def _texts(figure: Any) -> list[Any]:
    titles = [text for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    return [text for text in (*titles, figure._supxlabel, figure._suptitle) if text is not None and text.get_text()]


def _inside(figure: Any, text: Any) -> bool:
    box, whole = text.get_window_extent(), figure.bbox
    return box.x0 >= -1 and box.y0 >= -1 and box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1


def _shown(ax: Any, side: str, text: Any) -> bool:
    low, high = sorted(ax.get_xlim() if side == "x" else ax.get_ylim())
    place = text.get_position()[0 if side == "x" else 1]
    return low - 1e-9 * abs(low) <= place <= high + 1e-9 * abs(high)


def _astray(ax: Any) -> list[str]:
    """Labels of the x axis that are slanted and hang past their own tick, towards the next one's."""
    slanted = [text for text in ax.get_xticklabels() if text.get_rotation() and text.get_text()]
    ticks = [ax.transData.transform((text.get_position()[0], 0))[0] for text in slanted]
    height = [text.get_fontsize() * ax.figure.dpi / 72 for text in slanted]
    return [
        text.get_text()
        for text, tick, line in zip(slanted, ticks, height, strict=True)
        if text.get_window_extent().x1 > tick + line
    ]


def _flat(ax: Any) -> int:
    """Lines whose values differ by more than a tenth, and are all drawn at one height: the axis reaches too far."""
    found = 0
    for line in ax.get_lines():
        values, heights = line.get_xydata()[:, 1], ax.transData.transform(line.get_xydata())[:, 1]
        if len(values) > 2 and values.max() > 1.1 * values.min():
            found += int(heights.max() - heights.min() < 0.02 * ax.bbox.height)
    return found


def _covered(ax: Any) -> int:
    """How many points of lines lie under the legend."""
    if ax.get_legend() is None:
        return 0
    box = ax.get_legend().get_window_extent()
    points = [ax.transData.transform(point) for line in ax.get_lines() for point in line.get_xydata()]
    return sum(box.x0 < x < box.x1 and box.y0 < y < box.y1 for x, y in points)
