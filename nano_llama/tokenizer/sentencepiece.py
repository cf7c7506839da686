"""SentencePiece's BPE and the merges of a tokenizer.json: two ways to express the same order.

SentencePiece gives each token a score and joins, again and again, the two neighbours whose joined token scores highest
(of ties the leftmost). A tokenizer.json lists pairs, the first to be joined first. So the pairs are all splits
of each token into two others, in the order of the token's score; and a list of pairs can be expressed by scores exactly
if it has that form.

Not here: reading SentencePiece's own file. Source: Kudo and Richardson 2018; bpe_model.cc of SentencePiece.
Tests: tests/tokenizer/test_sentencepiece.py.
"""

from collections.abc import Sequence

from nano_llama.core.errors import UserError

Merge = tuple[str, str]


def merges_from_scores(tokens: Sequence[str], mergeable: Sequence[bool], scores: Sequence[float]) -> list[Merge]:
    """All pairs of tokens that join to a token, best score first. mergeable: False for control and byte tokens.

    Of the splits of one token the one with the longer left part comes first, which is mostly the leftmost in a text.
    """
    score_of = {token: score for token, usable, score in zip(tokens, mergeable, scores, strict=True) if usable}
    cuts = [
        (-score, -place, token)
        for token, score in score_of.items()
        for place in range(1, len(token))
        if token[:place] in score_of and token[place:] in score_of
    ]
    cuts.sort(key=lambda cut: cut[:2])  # stable: of ties the token with the lower id
    return [(token[:-place], token[-place:]) for _, place, token in cuts]


def scores_from_merges(tokens: Sequence[str], mergeable: Sequence[bool], merges: Sequence[Merge]) -> list[float]:
    """Scores under which SentencePiece joins in the order of `merges`: minus the rank of the token's first pair.

    Tokens that no pair makes score lowest. Raises UserError for merges that scores cannot express.
    """
    rank: dict[str, int] = {}
    for left, right in merges:
        rank.setdefault(left + right, len(rank))
    scores = [-float(rank.get(token, len(rank))) for token in tokens]
    if set(merges_from_scores(tokens, mergeable, scores)) != set(merges):
        raise UserError(
            "These merges cannot be expressed by SentencePiece's scores: some neighbours form a token but never join.",
            hint="Export to hf instead.",
        )
    return scores
