"""Image files as pixels: whatever a camera, a browser or a stranger made of it becomes squares of RGB bytes.

Formats are PNG, JPEG, GIF and WebP, of any mode: palettes, grey, 16 bits, CMYK; transparency lies on white, and a
camera's note of how it was held (EXIF) is followed. An animation is refused: which frame is meant is not guessed. A
file says how many pixels it will make before they are made; too many are refused then (decompression bombs).
Which squares a model wants is ImageProcessing's (image_processing.py). Pillow does the decoding (extra `vision`); an
array that has the right size needs none.
Tests: tests/core/vision/test_image_files.py.
"""

import io
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.errors import UserError, import_extra
from nano_llama.core.vision.image_processing import ImageProcessing, Tiles

MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 64 * 10**6  # 192 MB as RGB
FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
_WIDE = ("I;16", "I;16L", "I;16B", "I;16N")  # Pillow's 16-bit grey
_SEVERAL_IN_JPEG = "MPO"  # what phones write: the picture, and behind it a preview or a map of its depth
_OTHERS = re.compile(  # what else people have, by how it begins: a phone's photographs, drawings, scans
    rb".{4}ftyp(?P<HEIC>hei[cmsx]|hev[cx]|mif1|msf1)|.{4}ftyp(?P<AVIF>avi[fs])|\s*(<\?xml[^>]*>\s*)?(?P<SVG><svg)"
    rb"|(?P<TIFF>II\*\0|MM\0\*)|(?P<BMP>BM)|(?P<PDF>%PDF)",
    re.DOTALL,
)
_ORIENTATION = 0x0112


def read_image(
    source: Any, processing: ImageProcessing, *, max_bytes: int = MAX_FILE_BYTES, max_pixels: int = MAX_PIXELS
) -> Tiles:
    """A file's path, its bytes, an array (H,W,3) of bytes, or Pillow's image -> the squares that a model reads of it.

    Raises UserError for what is not an image, is damaged, moves, or is larger than the limits.
    """
    if hasattr(source, "__array__") or isinstance(source, np.ndarray):
        return _tiles_of_array(np.asarray(source), processing, max_pixels)
    pillow = sys.modules.get("PIL.Image")  # who has an image of Pillow's has imported it
    if isinstance(source, bytes) or (pillow is not None and isinstance(source, pillow.Image)):
        return _decoded(source, "The image", processing, max_pixels)
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        return _decoded(_bytes_of(path, max_bytes), str(path), processing, max_pixels)
    raise UserError(
        f"An image is a file's path, its bytes, an array of bytes (height, width, 3) or Pillow's, not"
        f" {type(source).__name__}."
    )


def _tiles_of_array(array: np.ndarray, processing: ImageProcessing, max_pixels: int) -> Tiles:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise UserError(
            f"An image as an array is uint8 of shape (height, width, 3), not {array.dtype} {array.shape}.",
            hint="Floats from 0 to 1: (255 * x).round().astype(np.uint8). Grey: np.stack([x] * 3, -1).",
        )
    _check_pixels(array.shape[1], array.shape[0], "The image", max_pixels)
    return processing.tiles_of_array(array)


def _bytes_of(path: Path, max_bytes: int) -> bytes:
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder, not an image.", hint="Name a file in it.")
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a file.", hint="Save the picture in one first.")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        hint = f"Give the path of a picture, one of {', '.join(FORMATS)}."
        raise UserError(f"Image not found: {path}.", hint=hint) from None
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {str(path)!r:.200}: {getattr(error, 'strerror', None) or error}.") from None
    if len(data) > max_bytes:
        raise UserError(f"{path} is larger than {max_bytes:,} bytes, the most that an image may have.")
    return data


def _decoded(source: Any, name: str, processing: ImageProcessing, max_pixels: int) -> Tiles:
    """source: a file's bytes, or Pillow's image, which may not have read its file yet."""
    pillow = import_extra("PIL.Image", "vision", "Reading image files")
    if source == b"":
        raise UserError(f"{name} is empty: it has no bytes.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of its own limit, which is above ours
            if not isinstance(source, bytes):
                return _tiles(source, name, processing, max_pixels, pillow)
            with pillow.open(io.BytesIO(source), formats=FORMATS) as image:
                return _tiles(image, name, processing, max_pixels, pillow)
    except pillow.UnidentifiedImageError:
        other = _OTHERS.match(source)
        raise UserError(
            f"{name} is a file in the format {other.lastgroup}, which is not read here."
            if other
            else f"{name} is not an image that is read here: it begins with {source[:8]!r}.",
            hint=f"Formats: {', '.join(FORMATS)}." + (" Save it as one of them." if other else ""),
        ) from None
    except pillow.DecompressionBombError:
        raise UserError(f"{name} has more than {max_pixels:,} pixels.", hint="Make it smaller first.") from None
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{name} needs more memory than there is.", hint="Make it smaller first.") from None
    except Exception as error:  # its decoders raise whatever a damaged file leads them to
        raise UserError(f"{name} is damaged: {str(error) or type(error).__name__:.200}.") from None


def _tiles(image: Any, name: str, processing: ImageProcessing, max_pixels: int, pillow: Any) -> Tiles:
    _check_pixels(image.width, image.height, name, max_pixels)
    if getattr(image, "is_animated", False) and image.format != _SEVERAL_IN_JPEG:
        raise UserError(
            f"{name} is an animation; a model reads one picture.",
            hint="Save the frame that you mean as a file of its own.",
        )
    image.load()
    return processing.tiles(_upright(_as_rgb(image, pillow), image, pillow))


def _check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UserError(
            f"{name} has {width:,} x {height:,} pixels, more than {max_pixels:,}.", hint="Make it smaller first."
        )


def _as_rgb(image: Any, pillow: Any) -> Any:
    """Any mode as RGB; what is transparent shows white."""
    if image.mode in _WIDE or image.mode == "I":  # Pillow would cut 16 bits off at 255
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)  # (H,W)
        return pillow.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _upright(rgb: Any, image: Any, pillow: Any) -> Any:
    """Turned as EXIF says that the camera was held."""
    turn = pillow.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE, 6: turn.ROTATE_270,
        7: turn.TRANSVERSE, 8: turn.ROTATE_90,
    }  # fmt: skip
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # the picture is whole, only the note is damaged
        return rgb
    return rgb.transpose(turns[orientation]) if orientation in turns else rgb
