"""Examples -> token ids and what is learned of them, within the context.

A sequence of n + 1 ids fits into a context of n: its last id is a target only. Texts that are longer are cut into
pieces, all of which are learned. Conversations that are longer lose their last answers, those that do not end within
the context; one whose first answer does not is refused, or left out where that is asked for. All that is lost is
reported (Cut).

Tests: tests/data/sft/test_sequences.py.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.data.sft.forms import Completion, Conversation, Example, Text
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.answers import AnswerEncoder, LearnedIds


@dataclass(frozen=True)
class TokenSequence:
    """ids (n,) int32, learned (n,) bool: which of them the model is to learn. where: file and line."""

    where: str
    ids: np.ndarray
    learned: np.ndarray


@dataclass(frozen=True)
class Cut:
    """What the context has no room for: this many ids, of which so many were to be learned."""

    where: str
    tokens: int
    learned: int


@dataclass(frozen=True)
class Encoded:
    """sequences: at least one of each example but the `left_out`; cut: what others lost. Both lists hold Cuts."""

    sequences: list[TokenSequence] = field(default_factory=list)
    cut: list[Cut] = field(default_factory=list)
    left_out: list[Cut] = field(default_factory=list)


def encode_examples(
    examples: Iterable[Example], tokenizer: Tokenizer, context: int, *, leave_out_long: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> Encoded:  # fmt: skip
    """The sequences of all examples, in their order.

    leave_out_long: leave out what has no answer within the context, instead of refusing it. variables: of the chat
    template, beside the messages.
    Raises UserError, naming file and line, for an example that cannot be encoded or is too long, and where nothing is
    left.
    """
    if context < 1:
        raise UserError(f"A context of {context} tokens holds nothing.", hint="Give at least 1.")
    encoder, result, too_long = AnswerEncoder(tokenizer), Encoded(), list[_TooLong]()
    where = []
    for example in examples:
        where.append(example.where)
        found = _encoded(example, encoder, variables or {})
        if isinstance(example, Text):
            result.sequences.extend(_pieces(example.where, found[0], context))
        else:
            lost = _add_answers(result, example.where, found, context, tokenizer.stop_ids)
            too_long += [lost] if lost else []
    if too_long and not leave_out_long:
        raise _refused(too_long, len(where), context)
    if not result.sequences:
        raise UserError(
            f"None of {len(where):,} examples (the first is {where[0]}) has an answer that ends within the context of"
            f" {context:,} tokens."
            if where
            else "There are no examples.",
            hint="Give more examples, or a larger context.",
        )
    return result


def _encoded(example: Example, encoder: AnswerEncoder, variables: Mapping[str, Any]) -> list[LearnedIds]:
    try:
        if isinstance(example, Conversation):
            return encoder.conversation(example.messages, tools=example.tools, **variables)
        if isinstance(example, Completion):
            return [encoder.completion(example.prompt, example.completion)]
        return [encoder.text(example.text)]
    except UserError as error:
        raise type(error)(f"{example.where}: {error.message}", error.hint) from error


@dataclass(frozen=True)
class _TooLong:
    """An example whose first answer does not end within the context: tokens of its prompt, and of that answer."""

    where: str
    prompt: int
    answer: int

    @property
    def context(self) -> int:
        """That it needs: its last id is a target only."""
        return self.prompt + self.answer - 1


def _add_answers(
    result: Encoded, where: str, found: list[LearnedIds], context: int, stop_ids: frozenset[int]
) -> _TooLong | None:
    """found: one example's. Each keeps the answers that end within the context; where none does, it is left out."""
    kept_sequences, cut = [], []
    for one in found:
        kept = max((end + 1 for end in _ends(one, stop_ids) if end <= context), default=0)
        if kept:
            kept_sequences.append(_sequence(where, one.ids[:kept], one.learned[:kept]))
        if kept < len(one.ids):
            cut.append(Cut(where, len(one.ids) - kept, sum(one.learned[kept:])))
    if kept_sequences:
        result.sequences.extend(kept_sequences)
        result.cut.extend(cut)
        return None
    result.left_out.append(Cut(where, sum(one.tokens for one in cut), sum(one.learned for one in cut)))
    begin, end = found[0].learned.index(True), _ends(found[0], stop_ids)[0]
    return _TooLong(where, begin, end + 1 - begin)


def _refused(too_long: list[_TooLong], count: int, context: int) -> UserError:
    first, needed = too_long[0], max(one.context for one in too_long)
    others = f" {len(too_long) - 1:,} more of {count:,} examples are too long." if len(too_long) > 1 else ""
    return UserError(
        f"{first.where}: the answer does not end within the context of {context:,} tokens: its prompt has"
        f" {first.prompt:,} and the answer {first.answer:,}.{others}",
        hint=f"Give a context of at least {needed:,} (--context) if the model has as many positions, shorten what is"
        " too long, or leave it out (--leave-out-long).",
    )


def _ends(found: LearnedIds, stop_ids: frozenset[int]) -> list[int]:
    """The places of the tokens that end answers."""
    return [place for place, learned in enumerate(found.learned) if learned and found.ids[place] in stop_ids]


def _pieces(where: str, found: LearnedIds, context: int) -> Iterator[TokenSequence]:
    """A text in pieces of at most context + 1 ids. Each begins with the last id of the one before, learned there."""
    for start in range(0, len(found.ids) - 1, context):
        end = start + context + 1
        yield _sequence(where, found.ids[start:end], [False, *found.learned[start + 1 : end]])


def _sequence(where: str, ids: list[int], learned: list[bool]) -> TokenSequence:
    return TokenSequence(where, np.array(ids, np.int32), np.array(learned, bool))
