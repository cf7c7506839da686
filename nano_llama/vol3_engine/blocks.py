"""Blocks: the cache of keys and values in pieces of BLOCK_SIZE tokens, who holds them, and which can be found again.

A text's tokens lie in blocks that need not be neighbours (Kwon et al. 2023, PagedAttention, arXiv 2309.06180); its
block table names them in order. A full block is remembered under what it holds, so that a text that begins alike shares
it instead of computing it anew. A block is always one of

    held     by one text or several (reference count); only a full block is ever shared, and a full one never written
    kept     by nobody, but remembered: found again, or forgotten when memory is short, the longest unused first
    empty    by nobody, without a memory (or not used yet)

Not here: the memory itself (runner/), which text gets a block when (scheduler.py). Tests: tests/vol3/test_blocks.py.
"""

from collections import OrderedDict
from collections.abc import Iterable

BLOCK_SIZE = 16  # tokens

ROOT = 0  # the chapter before the first: what a text's first block continues


class BlockPool:
    """Numbers 0 ... num_blocks-1, handed out, shared and taken back.

    What a block holds depends on all tokens before it, so it is remembered under (chapter before, its own tokens), and
    becomes a chapter itself, numbered once and never again. These keys are compared as a whole, not only by their
    hash, and a chapter's number stands for everything before it: two different beginnings can never be taken for one.
    """

    def __init__(self, num_blocks: int):
        self.num_blocks = num_blocks
        self.references: dict[int, int] = {}  # held block -> number of texts that hold it
        self.chapters: dict[int, int] = {}  # remembered block -> its chapter
        self._keys: dict[int, tuple[int, tuple[int, ...]]] = {}  # remembered block -> what it is remembered under
        self._found: dict[tuple[int, tuple[int, ...]], int] = {}  # and back
        self._kept: OrderedDict[int, None] = OrderedDict()  # the longest unused first
        self._emptied: list[int] = []
        self._used = 0  # blocks from here on were never handed out
        self._last_chapter = ROOT

    @property
    def num_free(self) -> int:
        """Blocks that can be handed out, the kept ones included."""
        return self.num_blocks - len(self.references)

    @property
    def num_kept(self) -> int:
        return len(self._kept)

    def take(self) -> int:
        """A block to write into. Whatever it was remembered for is forgotten."""
        assert self.num_free, "the scheduler asks only for what is free"
        if self._emptied:
            block = self._emptied.pop()
        elif self._used < self.num_blocks:
            block = self._used
            self._used += 1
        else:
            block, _ = self._kept.popitem(last=False)
            del self._found[self._keys.pop(block)], self.chapters[block]
        self.references[block] = 1
        return block

    def find(self, chapter: int, tokens: tuple[int, ...]) -> int | None:
        """The block that holds these tokens after that chapter."""
        return self._found.get((chapter, tokens))

    def share(self, block: int) -> None:
        """One more text holds it: a block that was found."""
        self._kept.pop(block, None)
        self.references[block] = self.references.get(block, 0) + 1

    def remember(self, block: int, chapter: int, tokens: tuple[int, ...]) -> int:
        """The block now holds these tokens after that chapter -> the chapter it becomes.

        Where another block is remembered for the same already, that one stays the one to be found.
        """
        assert self.references.get(block) == 1 and block not in self._keys, f"block {block} is shared already"
        known = self._found.get((chapter, tokens))
        if known is not None:
            return self.chapters[known]
        self._last_chapter += 1
        self._keys[block] = (chapter, tokens)
        self._found[chapter, tokens] = block
        self.chapters[block] = self._last_chapter
        return self._last_chapter

    def release(self, table: Iterable[int]) -> None:
        """A text lets go of its blocks; the last first, so that of a text that is forgotten the beginning stays."""
        for block in reversed(list(table)):
            self.references[block] -= 1
            if self.references[block] == 0:
                del self.references[block]
                if block in self._keys:
                    self._kept[block] = None
                else:
                    self._emptied.append(block)


def blocks_for(num_tokens: int) -> int:
    """How many blocks so many tokens fill."""
    return -(-num_tokens // BLOCK_SIZE)
