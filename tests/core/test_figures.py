"""What all figures share: colours that are seen on both grounds, ticks that can be read, files by their ending."""

import math

import pytest

from helpers.slides import faults_of
from nano_llama.core.errors import UserError
from nano_llama.core.figures import (
    BLUE,
    COLORS,
    ON_DARK,
    ON_LIGHT,
    blank,
    count_ticks,
    legend_above,
    log_ticks,
    look,
    number_text,
    panels,
    save,
)


def luminance(color: str) -> float:
    """As WCAG 2.2 defines it."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_colour_is_seen_on_its_ground():
    assert len(COLORS) == len(set(ON_LIGHT)) == len(set(ON_DARK)) == 10
    assert all(1.05 / (luminance(color) + 0.05) >= 3 for color in ON_LIGHT)
    assert all((luminance(color) + 0.05) / 0.05 >= 3 for color in ON_DARK)


def shown(axis) -> list[str]:
    low, high = axis.get_view_interval()
    return [axis.get_major_formatter()(place) for place in axis.get_majorticklocs() if low <= place <= high]


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.64), (1e-7, 2e-7), (0.2, 8), (3, 400_000), (1e-9, 1e3)])
def test_an_axis_in_logarithms_has_ticks_to_read(low, high):
    with look():
        _, (ax,) = panels([""])
        ax.loglog([1, 2], [low, high])
        log_ticks(ax.yaxis)
        ticks = shown(ax.yaxis)
    assert 2 <= len(ticks) <= 12 and len(set(ticks)) == len(ticks)
    assert all("^" not in tick for tick in ticks)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0005, "0.0005"), (0.5, "0.5"), (20_000, "20,000"), (2e-7, "2e-07"), (0, "0")]
)
def test_numbers_as_people_write_them(value, text):
    assert number_text(value) == text


def drawn(steps=3, legend=False):
    figure, (ax,) = panels(["loss"])
    ax.plot(range(1, steps + 1), range(steps), color=BLUE, label="a line")
    ax.set(xlabel="step", ylabel="nats")
    count_ticks(ax)
    if legend:
        legend_above(figure, ax, title="of what")
    return figure


def test_light_and_dark_svg_and_png(tmp_path):
    for dark in (False, True):
        with look(dark):
            save(drawn(), tmp_path / f"{dark}.svg", "LLaMA, seed 0")
            save(drawn(), tmp_path / f"again-{dark}.svg", "LLaMA, seed 0")
            save(drawn(), tmp_path / f"{dark}.png", "LLaMA, seed 0")
        assert (tmp_path / f"{dark}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"{dark}.svg").read_bytes() == (tmp_path / f"again-{dark}.svg").read_bytes()
    light, dark = ((tmp_path / f"{name}.svg").read_text() for name in (False, True))
    assert ON_LIGHT[0] in light and ON_DARK[0] in dark and ON_LIGHT[0] not in dark


def test_another_ending_is_refused(tmp_path):
    with look(), pytest.raises(UserError, match=r"a\.jpg: a picture is a \.png or a \.svg"):
        save(drawn(), tmp_path / "a.jpg", "")
    assert not list(tmp_path.iterdir())


def test_the_helper_sees_what_is_amiss():
    """tests/helpers/slides.py, by which the pictures of runs and studies are judged."""
    with look():
        figure = drawn(legend=True)
        assert faults_of(figure) == ["no caption"]
        figure.supxlabel("LLaMA, seed 0")
        assert faults_of(figure) == []
        (ax,) = figure.axes
        ax.legend(loc="lower left", labelspacing=20)
        ax.set(ylabel="", title="", xlabel="a label " * 30)
        ax.set_yticks([1.0])
        said = "\n".join(faults_of(figure))
    for fault in ("covers", "y axis has no label", "has the ticks ['1']", "is cut off"):
        assert fault in said


def test_a_figure_has_the_size_that_was_asked_for():
    with look():
        width, height = blank(10, 7).get_size_inches()
    assert math.isclose(width, 10) and math.isclose(height, 7)
