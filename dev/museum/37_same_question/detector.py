"""A block of the cache may be reused only where everything before it is the same too: tokens, salt, adapter."""

import numpy as np

from nano_llama.vol3_engine.blocks import BLOCK_SIZE, BlockPool


def run(texts, num_blocks=2000):
    """Send texts through a pool one after the other. A text is a salt and one letter for each of its blocks."""
    pool, computed_after, seen = BlockPool(num_blocks), {}, set()
    for salt, letters in texts:
        prefix_id, table, missed = pool.root(salt, None), [], False
        for depth, letter in enumerate(letters, start=1):
            contents, prefix = (letter,) * BLOCK_SIZE, (salt, *letters[:depth])
            block = None if missed else pool.lookup(prefix_id, contents)
            if block is None:
                assert prefix not in seen, f"{prefix} was computed before, and is not found again"
                missed = True
                block = pool.allocate()
                computed_after[block] = prefix
                prefix_id = pool.register(block, prefix_id, contents)
            else:
                assert computed_after[block] == prefix, (
                    f"a text that begins with the blocks {prefix} is given keys and values that were computed for"
                    f" {computed_after[block]}"
                )
                pool.acquire(block)
                prefix_id = pool.prefix_ids[block]
            table.append(block)
            seen.add(prefix)
        pool.free(table)


def test_another_beginning_is_another_text():
    run([(None, (1, 9)), (None, (2, 9))])
    run([(None, (1, 9)), (None, (9,))])
    run([(None, (1, 5, 9)), (None, (2, 5, 9))])


def test_salts_keep_texts_apart():
    run([("a", (9,)), ("b", (9,))])
    run([(None, (1, 9)), ("a", (9,))])


def test_many_texts_with_much_in_common():
    rng = np.random.default_rng(0)
    for _ in range(20):
        run(
            [
                (str(rng.integers(2)), tuple(int(letter) for letter in rng.integers(0, 3, rng.integers(1, 5))))
                for _ in range(40)
            ]
        )
