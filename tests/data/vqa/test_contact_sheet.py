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
    column, row = sheet.width // 2, sheet.height // 3
    for number, picture in enumerate(pictures):
        left, top = column * (number % 2) + 4, row * (number // 2) + 4
        np.testing.assert_array_equal(pixels[top : top + 192 : 3, left : left + 192 : 3], picture.image)
        captions = pixels[top + 192 : top + row - 8, left : left + column - 4]
        assert (captions.min(axis=-1) < 100).any()
