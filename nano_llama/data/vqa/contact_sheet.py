"""Many pictures on one, each above its questions and answers, so that a person can look at them.

Tests: tests/data/vqa/test_contact_sheet.py.
"""

from collections.abc import Iterable
from textwrap import wrap
from typing import Any

from nano_llama.core.errors import import_extra
from nano_llama.data.vqa.canvas import SIZE
from nano_llama.data.vqa.source import Picture

SCALE, LETTER, LINE, WIDTH = 3, 12, 15, 348  # of a picture; of a letter, a line of text and a column, in pixels
MARGIN, GREY = 4, (107, 107, 107)


def contact_sheet(pictures: Iterable[Picture], columns: int = 5, caption: str = "") -> Any:
    """A Pillow image (its .save(path) writes a file). Raises EnvironmentFault where Pillow is missing.

    caption: of what it is, below all pictures: the model, its shapes, the seed.
    """
    image_module = import_extra("PIL.Image", "vision", "A contact sheet")
    draw_module = import_extra("PIL.ImageDraw", "vision", "A contact sheet")
    font = import_extra("PIL.ImageFont", "vision", "A contact sheet").load_default(LETTER)
    shown = list(pictures)
    columns = min(columns, max(len(shown), 1))
    lines = 1 + max((len(picture.questions) for picture in shown), default=0)
    height = SCALE * SIZE + LINE * lines + 14
    bottom, across = height * -(-len(shown) // columns), WIDTH * columns
    below = wrap(caption, across // (LETTER // 2 + 1))
    sheet = image_module.new("RGB", (across, bottom + LINE * len(below) + MARGIN), "white")
    draw = draw_module.Draw(sheet)
    for number, picture in enumerate(shown):
        left, top = WIDTH * (number % columns) + MARGIN, height * (number // columns) + MARGIN
        large = image_module.fromarray(picture.image).resize((SCALE * SIZE,) * 2, image_module.Resampling.NEAREST)
        sheet.paste(large, (left, top))
        written = [
            f"{picture.task}, {picture.group}",
            *(f"{asked.text}  {asked.answer}" for asked in picture.questions),
        ]
        for line, text in enumerate(written):
            draw.text((left, top + SCALE * SIZE + 2 + LINE * line), text, fill="black", font=font)
    for line, text in enumerate(below):
        draw.text((MARGIN, bottom + LINE * line), text, fill=GREY, font=font)
    return sheet
