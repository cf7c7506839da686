"""How BPE makes a token: its merges, one by one, from single characters (in byte-level BPE, bytes) to the whole.

BPE cuts a word into characters and merges, again and again, the neighbours that come first in its list. What it does
within one of the final tokens does not depend on what stands beside it: a pair across its border is never merged, or
it would be no border. So the merges of a token are those of its own text, and the merges of a word are those of its
tokens, each time the one that comes first in the list.

Tests: tests/tokenizer/test_merge_steps.py.
"""

from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.token_bytes import alphabet_bytes, decoding_style

MAX_PIECES = 256  # of one token: each merge looks at all of them


class Merge(NamedTuple):
    """Two neighbours become one piece. rank: the merge's place in the list; the lowest goes first."""

    left: str
    right: str
    rank: int


class MergeSteps:
    """The merges of the tokens of one vocabulary."""

    def __init__(self, backend: Backend):
        self._backend = backend
        self._style, _ = decoding_style(backend.part("decoder"))
        self._known: dict[int, list[Merge] | None] = {}

    def of(self, token_id: int) -> list[Merge] | None:
        """In their order; []: a single character. None: no merges make it, since it is an added token, the vocabulary
        is not one of BPE, or the merges do not lead to it."""
        if token_id not in self._known:
            self._known[token_id] = self._compute(token_id)
        return self._known[token_id]

    def text(self, piece: str) -> str:
        """A piece as a reader knows it; parts of characters as \\xNN."""
        if self._style == "byte_level" and (written := alphabet_bytes(piece)) is not None:
            return written.decode(errors="backslashreplace")
        return piece.replace("▁", " ") if self._style == "sentencepiece" else piece

    def _compute(self, token_id: int) -> list[Merge] | None:
        token = self._backend.id_to_token(token_id)
        if token is None or token_id in self._backend.added_tokens or not self._ranks or len(token) > MAX_PIECES:
            return None
        pieces, steps = list(token), list[Merge]()
        while len(pieces) > 1:
            ranked = [(self._ranks.get(pair), place) for place, pair in enumerate(pairwise(pieces))]
            found = min(((rank, place) for rank, place in ranked if rank is not None), default=None)
            if found is None:
                return None
            rank, place = found
            steps.append(Merge(pieces[place], pieces[place + 1], rank))
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        return steps

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        """{(left, right): place in the list}; empty for a vocabulary that is not one of BPE."""
        merges = self._backend.document["model"].get("merges") or []
        pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges)
        return {(left, right): rank for rank, (left, right) in enumerate(pairs)}
