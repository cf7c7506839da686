"""Held-out text: general text that the examples have nothing to do with. What a model loses on it, it has forgotten.

Tests: tests/training/finetune/test_examination.py.
"""

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.data.batches import ArrayTokens, Validation, validation
from nano_llama.data.sources import open_source
from nano_llama.tokenizer import Tokenizer

NONE = "none"
TOKENS = 2048  # the same ones before and after: enough to see 1% of difference


def check_held_out(source: str) -> None:
    """Raises UserError where there is no such source: before the data are read, and a model."""
    if source != NONE:
        open_source(source)


def held_out_text(source: str, tokenizer: Tokenizer, context: int) -> Validation | None:
    """The first tokens of a source's validation split, in windows of the context, one a batch: where time is over, the
    windows before it count. None where none is wanted.

    Raises UserError where there is no such source, and where it has no text.
    """
    if source == NONE:
        return None
    ids: list[int] = list(tokenizer.roles.prefix)
    for document in open_source(source).documents("val"):
        ids += tokenizer.encode(document.text[: 8 * TOKENS], add_bos=False)
        if len(ids) > TOKENS:
            break
    ids = ids[: TOKENS + 1]
    if len(ids) < 2:
        raise UserError(f"held_out = {source!r}: there is no text in it.", hint="Give another text, or none.")
    tokens = ArrayTokens(np.array(ids, np.int64))
    text = tokenizer.decode(ids[1:], skip_special=False, continues=True)
    return validation(tokens, len(text.encode()), context, batch_size=1)
