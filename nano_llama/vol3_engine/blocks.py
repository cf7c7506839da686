"""The block pool: the KV cache in blocks of BLOCK_SIZE tokens, who uses them, and which prefixes they hold.

A sequence's tokens lie in blocks that need not be adjacent; its block table lists them in order (Kwon et al. 2023,
PagedAttention, arXiv 2309.06180). A full block is registered under its contents, so that a sequence with the same
prefix shares it instead of computing it again. Every block is in one of three states:

    in use     by one sequence or several (ref_counts); only full blocks are shared, and a full one is never written
    evictable  by none, but registered: a new sequence may acquire it; evicted when memory is short, least recently
               used first
    free       by none and not registered

Not here: the memory itself (runner/), which sequence gets a block when (scheduler.py).
Tests: tests/vol3/test_blocks.py.
"""

from collections import OrderedDict
from collections.abc import Iterable

BLOCK_SIZE = 16  # tokens

EMPTY_PREFIX = 0  # the prefix that a sequence's first block follows, unless a salt or an adapter keeps it apart

Contents = tuple[int | bytes, ...]  # a block's tokens, and what else tells it from others: its images' digests
Key = tuple[int, Contents]  # prefix_id, and what follows that prefix


class BlockPool:
    """Allocates, shares and frees the blocks 0 ... num_blocks-1.

    A block's keys and values depend on all tokens before it, so it is registered under the prefix before it and its
    own tokens. Both together are a longer prefix, which gets an id of its own, never used again. Keys are compared as
    a whole, not by their hash alone, so two different prefixes are never taken for the same one.
    """

    def __init__(self, num_blocks: int):
        self.num_blocks = num_blocks
        self.ref_counts: dict[int, int] = {}  # block in use -> number of sequences that use it
        self.prefix_ids: dict[int, int] = {}  # registered block -> the prefix that ends with it
        self._key_of: dict[int, Key] = {}  # registered block -> its key
        self._block_of: dict[Key, int] = {}  # and back
        self._evictable: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._free_list: list[int] = []
        self._num_touched = 0  # blocks from here on were never allocated
        self._last_prefix_id = EMPTY_PREFIX
        self._roots: dict[tuple[str | None, str | None], int] = {(None, None): EMPTY_PREFIX}

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated, the evictable ones included."""
        return self.num_blocks - len(self.ref_counts)

    @property
    def num_evictable(self) -> int:
        return len(self._evictable)

    def root(self, salt: str | None, adapter: str | None) -> int:
        """The empty prefix of sequences with that salt and adapter: those of others never find their blocks."""
        key = salt, adapter
        if key not in self._roots:
            self._last_prefix_id += 1
            self._roots[key] = self._last_prefix_id
        return self._roots[key]

    def allocate(self) -> int:
        """A block to write into; evicts one where none is free."""
        assert self.num_free, "the scheduler allocates no more than num_free blocks"
        if self._free_list:
            block = self._free_list.pop()
        elif self._num_touched < self.num_blocks:
            block = self._num_touched
            self._num_touched += 1
        else:
            block, _ = self._evictable.popitem(last=False)
            del self._block_of[self._key_of.pop(block)], self.prefix_ids[block]
        self.ref_counts[block] = 1
        return block

    def lookup(self, prefix_id: int, contents: Contents) -> int | None:
        """The block that holds these tokens after that prefix."""
        return self._block_of.get((prefix_id, contents))

    def acquire(self, block: int) -> None:
        """One more sequence uses a block that `lookup` returned."""
        self._evictable.pop(block, None)
        self.ref_counts[block] = self.ref_counts.get(block, 0) + 1

    def register(self, block: int, prefix_id: int, contents: Contents) -> int:
        """The block now holds these tokens after that prefix -> the id of the longer prefix.

        If another block is registered under the same key, `lookup` goes on returning that one.
        """
        assert self.ref_counts.get(block) == 1 and block not in self._key_of, f"block {block} is already shared"
        known = self._block_of.get((prefix_id, contents))
        if known is not None:
            return self.prefix_ids[known]
        self._last_prefix_id += 1
        self._key_of[block] = (prefix_id, contents)
        self._block_of[prefix_id, contents] = block
        self.prefix_ids[block] = self._last_prefix_id
        return self._last_prefix_id

    def free(self, block_table: Iterable[int]) -> None:
        """One sequence uses these blocks no longer. The last goes first, so that a prefix is evicted from its end."""
        for block in reversed(list(block_table)):
            self.ref_counts[block] -= 1
            if self.ref_counts[block] == 0:
                del self.ref_counts[block]
                if block in self._key_of:
                    self._evictable[block] = None
                else:
                    self._free_list.append(block)


def blocks_for(num_tokens: int) -> int:
    """Blocks that num_tokens tokens occupy."""
    return -(-num_tokens // BLOCK_SIZE)
