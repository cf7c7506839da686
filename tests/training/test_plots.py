"""The pictures are whole, and show what they are given."""

import math
import struct

import pytest

from nano_llama.training.plots import plot_run, plot_runs, thinned

pytestmark = pytest.mark.usefixtures("drawn")


def rows(steps, **more):
    return [
        {
            "step": step,
            "tokens": 64 * step,
            "train_loss": 4.0 / step,
            "lr": 0.1 / step,
            "grad_norm": 1.0,
            "tokens_per_second": 640.0,
            "elapsed_s": 0.1 * step,
            **more,
        }
        for step in range(1, steps + 1)
    ]


def size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[-8:-4] == b"IEND"
    return struct.unpack(">II", content[16:24])


def test_pngs_of_the_promised_sizes(tmp_path):
    plot_run([*rows(49), {"step": 50, "train_loss": 0.1, "val_loss": 0.2}], tmp_path / "loss.png", "a title")
    plot_runs([("a", rows(30)), ("b", rows(20, val_loss=1.0))], tmp_path / "runs.png")
    assert (size(tmp_path / "loss.png"), size(tmp_path / "runs.png")) == ((1500, 1050), (1800, 825))
    assert len(list(tmp_path.iterdir())) == 2, "no temporary file is left"


def test_every_figure_is_drawn(tmp_path):
    whole, pictures = rows(30, val_loss=2.0), set()
    for left_out in (None, "val_loss", "lr", "grad_norm", "tokens_per_second", "train_loss"):
        plot_run([{key: row[key] for key in row if key != left_out} for row in whole], tmp_path / "loss.png")
        pictures.add((tmp_path / "loss.png").read_bytes())
    assert len(pictures) == 6


@pytest.mark.parametrize("few", [[], rows(1), [{"step": 3}], rows(25, grad_norm=0.0)])
def test_little_to_draw_is_drawn_too(tmp_path, few):
    plot_run(few, tmp_path / "a.png")
    plot_runs([("one", few)], tmp_path / "b.png")
    assert size(tmp_path / "a.png") and size(tmp_path / "b.png")


def test_thinning_keeps_the_mean_and_the_end():
    curve = [(float(x), math.sin(x)) for x in range(10_000)]
    few = thinned(curve, 100)
    assert len(few) == 100 and few[-1][0] == curve[-1][0]
    assert sum(y for _, y in few) / 100 == pytest.approx(sum(y for _, y in curve) / 10_000)
    assert thinned(curve[:7], 100) == curve[:7]
