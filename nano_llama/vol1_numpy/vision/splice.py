"""The rows of images put in place of the image tokens' embeddings: from here on the LLaMA sees one sequence of rows.

Tests: tests/vol1/vision/test_splice.py.
"""

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.registry import OpPair


def splice_forward(text: Array, rows: Array, is_image: Array) -> tuple[Array, Cache]:
    """x[b,t] = text[b,t], or the next of `rows` in reading order where is_image[b,t].

    text: (B,T,D)   rows: (N,n,D), as many as is_image has True   is_image: (B,T) boolean   -> x (B,T,D)
    """
    x = text.copy()
    x[is_image] = rows.reshape(-1, rows.shape[-1])
    return x, (is_image, rows.shape)


def splice_backward(dx: Array, cache: Cache) -> tuple[Array, Array]:
    """Each row of x comes from one place, so its gradient goes back there, and the text that it replaced gets none.

    -> dtext (B,T,D), zero at the image tokens; drows (N,n,D)
    """
    is_image, shape = cache
    dtext = dx.copy()
    dtext[is_image] = 0
    return dtext, dx[is_image].reshape(shape)


class SplicedEmbedding:
    """A LLaMA's `embedding` op for one pass with images: looks tokens up, then splices in `rows` (N,n,D).

    The LLaMA knows nothing of it, as it calls its ops through a table. `drows` is the rows' gradient once the backward
    pass has reached them.
    """

    def __init__(self, embedding: OpPair, rows: Array, image_token_id: int):
        self.embedding, self.rows, self.image_token_id = embedding, rows, image_token_id
        self.drows: Array = np.zeros_like(rows)  # (N,n,D)

    def forward(self, tokens: Array, weight: Array) -> tuple[Array, Cache]:
        text, embed = self.embedding.forward(tokens, weight)  # (B,T,D)
        x, splice = splice_forward(text, self.rows, tokens == self.image_token_id)  # (B,T,D)
        return x, (embed, splice)

    def backward(self, dx: Array, cache: Cache) -> Array:
        embed, splice = cache
        dtext, self.drows = splice_backward(dx, splice)
        return self.embedding.backward(dtext, embed)  # (V,D)
