"""Of packed documents every token is a target, the end of text too, but for the first, which nothing foretells."""

import numpy as np

from nano_llama.data.batches import ArrayTokens, Batches

LENGTHS = (5, 1, 9, 3, 14, 2, 7, 6, 11, 4)
END = 0  # of each document: its last token
STARTS = (0, *np.cumsum(LENGTHS)[:-1].tolist())
TEXT = np.arange(1, sum(LENGTHS) + 1)
TEXT[np.cumsum(LENGTHS) - 1] = END


def rows(context):
    batches = Batches(ArrayTokens(TEXT, STARTS), batch_size=4, context=context, seed=1, document_mask=True)
    for position in range(8):
        start = batches.starts(position)
        tokens, targets, documents = batches.at(position)
        yield from zip(start, tokens, targets, documents, strict=True)


def test_the_end_of_every_document_is_learned():
    for context in (6, 12):
        for start, tokens, targets, _ in rows(context):
            for place in range(start, start + context):
                if TEXT[place + 1] == END and place + 1 not in STARTS:
                    assert targets[place - start] == END, (
                        f"in a row of {tokens.tolist()} the end of text after token {TEXT[place]} is not counted"
                    )


def test_no_document_foretells_the_next():
    for context in (6, 12):
        for start, tokens, targets, _ in rows(context):
            for place in range(start, start + context):
                expected = -100 if place + 1 in STARTS else TEXT[place + 1]
                assert targets[place - start] == expected, (
                    f"in a row of {tokens.tolist()} the target after token {TEXT[place]} is {targets[place - start]}"
                )
