"""Many pictures on one, each above its questions and answers, so that a person can look at them.

Tests: tests/data/vqa/test_contact_sheet.py.
"""

from collections.abc import Iterable
from typing import Any

from nano_llama.core.errors import import_extra
from nano_llama.data.vqa.canvas import SIZE
from nano_llama.data.vqa.source import Picture

SCALE, LINE, WIDTH = 3, 13, 268  # of a picture; of a line of text and of a column, in pixels


def contact_sheet(pictures: Iterable[Picture], columns: int = 5) -> Any:
    """A Pillow image (its .save(path) writes a file). Raises EnvironmentFault where Pillow is missing."""
    image_module = import_extra("PIL.Image", "vision", "A contact sheet")
    draw_module = import_extra("PIL.ImageDraw", "vision", "A contact sheet")
    font = import_extra("PIL.ImageFont", "vision", "A contact sheet").load_default(11)
    shown = list(pictures)
    lines = 1 + max((len(picture.questions) for picture in shown), default=0)
    height = SCALE * SIZE + LINE * lines + 14
    sheet = image_module.new("RGB", (WIDTH * columns, height * -(-len(shown) // columns)), "white")
    draw = draw_module.Draw(sheet)
    for number, picture in enumerate(shown):
        left, top = WIDTH * (number % columns) + 4, height * (number // columns) + 4
        large = image_module.fromarray(picture.image).resize((SCALE * SIZE,) * 2, image_module.Resampling.NEAREST)
        sheet.paste(large, (left, top))
        captions = [
            f"{picture.task}, {picture.group}",
            *(f"{asked.text} {asked.answer}" for asked in picture.questions),
        ]
        for line, caption in enumerate(captions):
            draw.text((left, top + SCALE * SIZE + 2 + LINE * line), caption, fill="black", font=font)
    return sheet
