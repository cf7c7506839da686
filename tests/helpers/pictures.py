"""Runs without their picture: drawing loss.png takes longer than all else that most runs of the tests do."""

from pathlib import Path
from unittest.mock import MagicMock

from nano_llama.training import plots


def leave_pictures_out(set_attribute=setattr):
    """From now on a picture is an empty file."""

    def panels(mosaic, *arguments, **options):
        names = dict.fromkeys(name for row in mosaic for name in row)
        return None, [MagicMock() for _ in names]

    set_attribute(plots, "_panels", panels)
    set_attribute(plots, "_save", lambda figure, path: Path(path).touch())
