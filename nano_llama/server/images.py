"""Images in messages: parts {"type": "image_url"} become pixels, in a thread, or are refused with the reason.

The picture travels in the request, as a data URL; the server fetches nothing. What it may cost is limited by bytes
(max_image_bytes) and by MAX_IMAGE_PIXELS, which a file must not exceed by what it says of itself.
Tests: tests/server/test_api_images.py.
"""

import binascii
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nano_llama.core.errors import UserError
from nano_llama.server.errors import ApiError
from nano_llama.server.schemas import ImagePart, Message

if TYPE_CHECKING:
    from nano_llama.vol3_engine.image_reader import ImageReader

MAX_IMAGE_PIXELS = 32 * 10**6  # 96 MB as RGB, for each of the threads that decode; phones have 12 to 24 million
PIECE = 2**18  # characters of base64, a multiple of four
_DATA_URL = re.compile(r"data:image/[a-zA-Z0-9.+-]{1,40};base64,", re.ASCII)


def image_parts(messages: Sequence[Message]) -> list[tuple[int, int, ImagePart]]:
    """(message, part, what is there) of every image."""
    return [
        (number, place, part)
        for number, message in enumerate(messages)
        if isinstance(message.content, list)
        for place, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]


def refuse_images(messages: Sequence[Message], why: str) -> None:
    """Raise ApiError, 400, at the first image of the messages."""
    for number, place, _ in image_parts(messages):
        path = f"messages[{number}].content[{place}].type"
        raise ApiError(400, f'{path}="image_url": {why}', param=path, code="unsupported")


def with_pixels(
    plain: list[dict[str, Any]], messages: Sequence[Message], reader: "ImageReader"
) -> list[dict[str, Any]]:
    """The messages as LLM.request takes them: every image decoded, as the model's squares. It takes a while: call it in
    a thread. Raises ApiError, 400. The data URLs are let go: an answer may take minutes, and its body is kept.

    Once they are more than the context holds, the others stay undecoded: the request will be refused for its length.
    """
    room = reader.config.text_config.max_position_embeddings
    for number, place, part in image_parts(messages):
        path = f"messages[{number}].content[{place}].image_url.url"
        image: Any = _bytes_of(part.image_url.url, path)
        if room > 0:
            try:
                whole = part.image_url.detail == "low"
                image = reader.read(image, max_pixels=MAX_IMAGE_PIXELS, splitting=not whole)
            except UserError as error:
                said = " ".join(filter(None, (error.message, error.hint)))
                raise ApiError(400, f"{path}: {said}", param=path) from None
            room -= len(reader.ids_of(image))
        part.image_url.url = ""
        plain[number]["content"][place] = {"type": "image", "image": image}
    return plain


def _bytes_of(url: str, path: str) -> bytes:
    found = _DATA_URL.match(url)
    if found is None:
        kind = url.split(":", 1)[0].lower() if ":" in url[:32] else ""
        why = (
            f"this server fetches nothing, so {kind} URLs are not read."
            if kind in ("http", "https")
            else "is not read."
        )
        raise ApiError(
            400,
            f"{path}={url[:40]!r}: {why} Send the picture itself: data:image/png;base64,...",
            param=path,
            code="unsupported",
        )
    try:
        return _from_base64(url[found.end() :])
    except ValueError as error:  # binascii.Error is one
        raise ApiError(400, f"{path} is not valid base64: {error}.", param=path) from None


def _from_base64(text: str) -> bytes:
    """In pieces, between which other threads run: a whole photograph would hold Python's lock for 30 ms."""
    if "=" in text[:-2]:
        raise ValueError("padding amid the data")
    pieces = (text[at : at + PIECE] for at in range(0, len(text), PIECE))
    return b"".join(binascii.a2b_base64(piece, strict_mode=True) for piece in pieces)
