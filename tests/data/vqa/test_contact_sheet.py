"""The contact sheet: every picture on it, enlarged, at its place."""

import numpy as np
import pytest

from nano_llama.data.vqa import ShapesVQA, contact_sheet

pytest.importorskip("PIL")


def test_every_picture_is_on_it(tmp_path):
    pictures = list(ShapesVQA(("shape", "count")).pictures("test", 0, 5))
    sheet = contact_sheet(pictures, columns=2)
    sheet.save(tmp_path / "sheet.png")
    pixels = np.asarray(sheet)
    column, row = sheet.width // 2, (sheet.height - 4) // 3
    for number, picture in enumerate(pictures):
        left, top = column * (number % 2) + 4, row * (number // 2) + 4
        np.testing.assert_array_equal(pixels[top : top + 192 : 3, left : left + 192 : 3], picture.image)
        captions = pixels[top + 192 : top + row - 8, left : left + column - 4]
        assert (captions.min(axis=-1) < 100).any()


def test_a_caption_stands_below_all_of_them():
    pictures = list(ShapesVQA(("shape",)).pictures("test", 0, 3))
    plain, long = contact_sheet(pictures), contact_sheet(pictures, caption="a model, its shapes, its seed; " * 12)
    above, below = np.asarray(long)[: plain.height], np.asarray(long)[plain.height :]
    np.testing.assert_array_equal(above[:-4], np.asarray(plain)[:-4])
    assert len(below) >= 2 * 12, "broken into lines"
    assert (below[:, -4:] == 255).all() and (below < 160).any(), "written, and not cut off at the edge"
    assert plain.width == contact_sheet(pictures, columns=3).width, "no empty columns"
