"""PackedBatch.pack: where each row goes, which rows are prefill, and whose logits are needed."""

from nano_llama.vol3_engine.batch import Chunk, PackedBatch


def test_the_example_of_the_module_header():
    batch = PackedBatch.pack([Chunk([15], 5, 4, [7], adapter="poet"), Chunk([20, 21, 22], 0, 9, [2], num_logits=0)])
    assert batch == PackedBatch([15, 20, 21, 22], [0, 1, 4], [5, 0], [0, 3], [[7], [2]], ["poet", None], [0])
    assert (batch.num_tokens, batch.num_sequences) == (4, 2)
    assert [batch.length(s) for s in range(2)] == [6, 3]


def test_a_chunk_may_hold_both_prefill_and_decode_rows():
    batch = PackedBatch.pack([Chunk([1, 2, 3, 4], 2, 4, [0])])
    assert batch.prefill_rows == [2]


def test_the_logits_of_a_chunks_last_rows():
    batch = PackedBatch.pack(
        [Chunk([1, 2, 3], 0, 9, [0], num_logits=2), Chunk([4], 0, 1, [1]), Chunk([5, 6], 0, 2, [2])]
    )
    assert batch.logit_rows == [1, 2, 3, 5]


def test_block_tables_are_copied():
    table = [3]
    batch = PackedBatch.pack([Chunk([1], 0, 1, table)])
    table.append(4)
    assert batch.block_tables == [[3]]


def test_an_empty_batch():
    assert PackedBatch.pack([]) == PackedBatch([], [0], [], [], [], [], [])
