"""The block pool: who uses what, which prefixes are found again, what is evicted first."""

from nano_llama.vol3_engine.blocks import EMPTY_PREFIX, BlockPool, blocks_for


def test_every_block_is_allocated_once_and_can_be_freed():
    pool = BlockPool(3)
    table = [pool.allocate(), pool.allocate(), pool.allocate()]
    assert sorted(table) == [0, 1, 2] and pool.num_free == 0
    pool.free(table[:2])
    assert pool.num_free == 2
    assert {pool.allocate(), pool.allocate()} == set(table[:2])


def test_a_registered_block_is_found_after_the_same_prefix_only():
    pool = BlockPool(4)
    one, two = pool.allocate(), pool.allocate()
    prefix = pool.register(one, EMPTY_PREFIX, (1, 2))
    pool.register(two, prefix, (3, 4))
    assert pool.lookup(EMPTY_PREFIX, (1, 2)) == one
    assert pool.lookup(prefix, (3, 4)) == two
    assert pool.lookup(EMPTY_PREFIX, (3, 4)) is None, "the same tokens after another prefix have other keys and values"
    pool.free([one, two])
    assert pool.lookup(prefix, (3, 4)) == two, "it stays until memory is short"
    pool.acquire(two)
    pool.acquire(two)
    assert pool.ref_counts == {two: 2}
    pool.free([two])
    assert pool.ref_counts == {two: 1}


def test_eviction_is_lru_and_takes_a_prefix_from_its_end():
    pool = BlockPool(3)
    table = [pool.allocate() for _ in range(3)]
    first = pool.register(table[0], EMPTY_PREFIX, (0,))
    second = pool.register(table[1], first, (1,))
    pool.register(table[2], second, (2,))
    pool.free(table)
    assert pool.allocate() == table[2]
    assert pool.lookup(second, (2,)) is None and pool.lookup(first, (1,)) == table[1]
    assert pool.allocate() == table[1]


def test_of_two_equal_blocks_one_is_registered_and_both_can_be_freed():
    pool = BlockPool(2)
    one, other = pool.allocate(), pool.allocate()
    assert pool.register(one, EMPTY_PREFIX, (5,)) == pool.register(other, EMPTY_PREFIX, (5,))
    pool.free([one, other])
    assert pool.lookup(EMPTY_PREFIX, (5,)) == one
    assert pool.num_free == 2 and pool.num_evictable == 1


def test_the_prefix_id_of_an_evicted_block_is_never_used_again():
    pool = BlockPool(1)
    block = pool.allocate()
    old = pool.register(block, EMPTY_PREFIX, (1,))
    pool.free([block])
    block = pool.allocate()
    assert pool.register(block, EMPTY_PREFIX, (2,)) != old


def test_blocks_for():
    assert [blocks_for(n) for n in (0, 1, 16, 17)] == [0, 1, 1, 2]


def test_each_salt_and_each_adapter_has_an_empty_prefix_of_its_own():
    pool = BlockPool(2)
    roots = [pool.root(None, None), pool.root("a", None), pool.root("b", None), pool.root(None, "a")]
    assert roots[0] == EMPTY_PREFIX and len(set(roots)) == 4 and pool.root("a", None) == roots[1]
    pool.register(pool.allocate(), roots[1], (1, 2))
    assert [pool.lookup(root, (1, 2)) is not None for root in roots] == [False, True, False, False]
    assert pool.register(pool.allocate(), EMPTY_PREFIX, (3,)) not in roots
