"""Pictures that are not meant well, or are only unusual: their bytes, and what is to be said or answered.

PICTURES: name -> (bytes, what its refusal says) or (bytes, bytes of a PNG of the same pixels).
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from nano_llama.data.vqa import ShapesVQA

SHOWN = ShapesVQA(("shape",)).picture("train", 0)
PIXELS = SHOWN.image
_ORIENTATION = 0x0112


def encoded(pixels, format="PNG", mode=None, **options):
    """pixels: (H,W,3) bytes, (H,W) of 8 or 16 bits, or Pillow's."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.ascontiguousarray(pixels))
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, format, **options)
    return file.getvalue()


def png(width, height, data=b""):
    """A PNG that says it is so large, and holds that data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(data, kind, body):
    """A PNG with one more behind its header."""
    end = 8 + 25  # the signature, and IHDR
    return data[:end] + chunk(kind, body) + data[end:]


def held(orientation):
    """EXIF, as a camera that was held so writes it."""
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return exif


PLAIN = encoded(PIXELS)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
GREY = PIXELS.mean(-1).astype(np.uint8)
BOMB = zlib.compress(bytes(10 * 2**20))  # 10 KB that become 10 MB
PICTURES = {
    "no bytes": (b"", "is empty"),
    "a text": (b"This is not a picture.\n", "is not an image that is read here: it begins with b'This is '"),
    "a web page": (b"<!doctype html><html></html>", "is not an image that is read here"),
    "a bomb": (png(30_000, 30_000, bytes(10**6)), "more than"),
    "truncated": (encoded(NOISE)[:4000], "is damaged"),
    "truncated jpeg": (encoded(NOISE, "JPEG")[:900], "is damaged"),
    "no pixels": (png(64, 64), "is damaged"),
    "a note that is a bomb": (with_chunk(PLAIN, b"zTXt", b"Comment\0\0" + BOMB), "is damaged"),
    "a colour profile that is a bomb": (with_chunk(PLAIN, b"iCCP", b"profile\0\0" + BOMB), "is damaged"),
    "animated": (encoded(PIXELS, "GIF", save_all=True, append_images=[Image.fromarray(NOISE)]), "is an animation"),
    "a long note": (with_chunk(PLAIN, b"tEXt", b"Comment\0" + b"x" * 400_000), PLAIN),
    "a colour profile that is none": (with_chunk(PLAIN, b"iCCP", b"profile\0\0" + b"x" * 4000), PLAIN),
    "1 x 100,000": (encoded(np.full((100_000, 1, 3), (214, 38, 38), np.uint8)),
                    encoded(np.full((64, 64, 3), (214, 38, 38), np.uint8))),
    "16 bits": (encoded(GREY.astype(np.uint16) * 257), encoded(GREY)),
    "a palette": (encoded(PIXELS, mode="P"), encoded(Image.fromarray(PIXELS).convert("P"), mode="RGB")),
    "upside down, and says so": (encoded(PIXELS[::-1, ::-1], exif=held(3)), PLAIN),
    "on its side, and says so": (encoded(np.rot90(PIXELS), exif=held(6)), PLAIN),
    "cmyk": (encoded(PIXELS, "JPEG", "CMYK", quality=100, subsampling=0), PLAIN),
    "a phone's, with another behind it": (encoded(PIXELS, "MPO", save_all=True, quality=100, subsampling=0,
                                                  append_images=[Image.fromarray(NOISE)]), PLAIN),
}  # fmt: skip
