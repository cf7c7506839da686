"""The token that stands for a row of an image: found in a tokenizer, or added to one.

A model's tokenizer_config.json names it as `image_token`. Tests: tests/tokenizer/test_image_token.py.
"""

from dataclasses import replace

import tokenizers

from nano_llama.core.errors import UserError
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.tokenizer import Tokenizer

IMAGE_TOKEN = "<image>"
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
