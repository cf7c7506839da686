"""loss.png is a picture, whole, and shows what it is given."""

import struct

from nano_llama.core.training.plots import plot_loss

ROWS = [{"step": step, "train_loss": 4.0 / step} for step in range(1, 50)]


def test_a_png_of_the_promised_size(tmp_path):
    plot_loss([*ROWS, {"step": 50, "train_loss": 0.1, "val_loss": 0.2}], tmp_path / "loss.png", "a title")
    content = (tmp_path / "loss.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[-8:-4] == b"IEND"
    assert struct.unpack(">II", content[16:24]) == (1200, 750)
    assert list(tmp_path.iterdir()) == [tmp_path / "loss.png"], "no temporary file is left"


def test_validation_losses_are_drawn(tmp_path):
    plot_loss(ROWS, tmp_path / "a.png")
    plot_loss([*ROWS, {"step": 50, "val_loss": 0.2}], tmp_path / "b.png")
    plot_loss([], tmp_path / "c.png")
    pictures = {(tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png")}
    assert len(pictures) == 3
