"""The block pool: who holds what, what is found again, what is forgotten first."""

from nano_llama.vol3_engine.blocks import ROOT, BlockPool, blocks_for


def test_blocks_are_handed_out_once_and_come_back():
    pool = BlockPool(3)
    table = [pool.take(), pool.take(), pool.take()]
    assert sorted(table) == [0, 1, 2] and pool.num_free == 0
    pool.release(table[:2])
    assert pool.num_free == 2
    assert {pool.take(), pool.take()} == set(table[:2])


def test_a_remembered_block_is_found_after_the_same_beginning_only():
    pool = BlockPool(4)
    one, two = pool.take(), pool.take()
    chapter = pool.remember(one, ROOT, (1, 2))
    pool.remember(two, chapter, (3, 4))
    assert pool.find(ROOT, (1, 2)) == one
    assert pool.find(chapter, (3, 4)) == two
    assert pool.find(ROOT, (3, 4)) is None, "the same tokens after another beginning are another text"
    pool.release([one, two])
    assert pool.find(chapter, (3, 4)) == two, "it is kept while memory is not short"
    pool.share(two)
    pool.share(two)
    assert pool.references == {two: 2}
    pool.release([two])
    assert pool.references == {two: 1}


def test_the_longest_unused_is_forgotten_first_and_ends_before_beginnings():
    pool = BlockPool(3)
    table = [pool.take() for _ in range(3)]
    first = pool.remember(table[0], ROOT, (0,))
    second = pool.remember(table[1], first, (1,))
    pool.remember(table[2], second, (2,))
    pool.release(table)
    assert pool.take() == table[2]
    assert pool.find(second, (2,)) is None and pool.find(first, (1,)) == table[1]
    assert pool.take() == table[1]


def test_what_two_wrote_alike_is_found_once_and_both_may_go():
    pool = BlockPool(2)
    one, other = pool.take(), pool.take()
    assert pool.remember(one, ROOT, (5,)) == pool.remember(other, ROOT, (5,))
    pool.release([one, other])
    assert pool.find(ROOT, (5,)) == one
    assert pool.num_free == 2 and pool.num_kept == 1


def test_a_chapter_of_a_forgotten_beginning_is_never_given_again():
    pool = BlockPool(1)
    block = pool.take()
    old = pool.remember(block, ROOT, (1,))
    pool.release([block])
    block = pool.take()
    assert pool.remember(block, ROOT, (2,)) != old


def test_blocks_for():
    assert [blocks_for(n) for n in (0, 1, 16, 17)] == [0, 1, 1, 2]
