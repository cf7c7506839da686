"""The tokens that stand for an image: found in a tokenizer, or added to one, and what stands around them.

A model's tokenizer_config.json names the token of a row of an image as `image_token`. Models of ours read an image as
that token, image_seq_len times. Idefics3 and SmolVLM read what their processor writes for it (ImageText).
Tests: tests/tokenizer/test_image_token.py, and beside transformers tests/parity/test_idefics3_processor.py.
"""

from dataclasses import replace

import tokenizers

from nano_llama.core.errors import UserError
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.tokenizer import Tokenizer

IMAGE_TOKEN = "<image>"
AROUND, GLOBAL, TILE = "<fake_token_around_image>", "<global-img>", "<row_{}_col_{}>"
_ROLE = "image_token"


def image_token_id(tokenizer: Tokenizer) -> int | None:
    """Its id; None in a tokenizer of text alone."""
    return dict(tokenizer.roles.others).get(_ROLE)


def with_image_token(tokenizer: Tokenizer) -> Tokenizer:
    """A copy of `tokenizer` with `<image>` as one more special token, whose id comes after all others.

    As with every special token, `encode` makes it of typed text only with parse_special=True.
    Raises UserError where it has an image token already.
    """
    if image_token_id(tokenizer) is not None:
        raise UserError("The tokenizer already has an image token.", hint="Its model can be used as it is.")
    backend = Backend(tokenizers.Tokenizer.from_str(tokenizer.backend.source))
    backend.add_tokens([tokenizers.AddedToken(IMAGE_TOKEN, special=True, normalized=False)])
    number = backend.token_to_id(IMAGE_TOKEN)
    assert number is not None, "it was added"
    others = (*tokenizer.roles.others, (_ROLE, number))
    return Tokenizer(backend, replace(tokenizer.roles, others=others), tokenizer.chat_templates)


def has_image_text(tokenizer: Tokenizer) -> bool:
    """Whether it was made for images as Idefics3 and SmolVLM read them."""
    return AROUND in {token.content for token in tokenizer.backend.added_tokens.values()}


class ImageText:
    """What Idefics3 and SmolVLM read for an image, as ids. Usable from several threads.

    one square        <fake_token_around_image><global-img><image>...<image><fake_token_around_image>
    rows of tiles     <fake_token_around_image><row_1_col_1><image>...<image>, tile after tile; each row of them ends
                      the line, an empty line follows, and then the whole image, as above
    """

    def __init__(self, tokenizer: Tokenizer, image_token_id: int, image_seq_len: int):
        """Raises UserError for a tokenizer without the token around images: of its pieces other ids would come."""
        self._backend = tokenizer.backend
        if not has_image_text(tokenizer):
            raise UserError(
                f"The tokenizer has no token {AROUND}, and the folder's image processor puts it around every image.",
                hint="Take the tokenizer's files from where the model came from.",
            )
        self._square = (self._backend.id_to_token(image_token_id) or IMAGE_TOKEN) * image_seq_len
        self._known: dict[tuple[int, int], list[int]] = {}  # as many as there are shapes of images

    def ids(self, rows: int = 0, columns: int = 0) -> list[int]:
        """Of an image split into so many tiles; 0 and 0: it is not split."""
        if (rows, columns) not in self._known:
            whole = f"{AROUND}{GLOBAL}{self._square}{AROUND}"
            lines = [
                "".join(f"{AROUND}{TILE.format(row, column)}{self._square}" for column in range(1, columns + 1)) + "\n"
                for row in range(1, rows + 1)
            ]
            text = "".join([*lines, "\n" if rows else "", whole])
            self._known[rows, columns] = self._backend.encode(text, parse_special=True)
        return self._known[rows, columns]
