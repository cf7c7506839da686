"""Which ids are special: BOS, EOS, padding, unknown, and all that end an answer.

A tokenizer.json does not say it all; the files beside it do (files.py), or a GGUF's metadata (gguf.py).

Tests: tests/tokenizer/test_tokenizer_files.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nano_llama.tokenizer.backend import Backend

# Tokens by which instruction-tuned models end their turn. Some files declare only the end of the text.
END_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eom_id|>", "<|end_of_text|>")
# Tokens that end a text, for a tokenizer.json without the files that say so.
END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "<|im_end|>")


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Ids, or None where the tokenizer has no such token.

    prefix, suffix: what the tokenizer's own file puts before and after a text. declared_stops: end-of-answer ids that
    files name besides EOS. others: (name, id) of the further special tokens that files name, such as "image_token".
    """

    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    unk: int | None = None
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    declared_stops: tuple[int, ...] = ()
    others: tuple[tuple[str, int], ...] = ()

    def stop_ids(self, backend: Backend) -> frozenset[int]:
        """Ids that end an answer: EOS, what files declare, and the special tokens that end a turn."""
        named = {
            number for number, token in backend.added_tokens.items() if token.special and token.content in END_OF_TURN
        }
        declared = {number for number in self.declared_stops if backend.id_to_token(number) is not None}
        return frozenset(named | declared | ({self.eos} if self.eos is not None else set()))


def affixes(post_processor: Mapping[str, Any] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a tokenizer.json's `post_processor` puts before and after a single text."""
    if post_processor is None:
        return (), ()
    kind = post_processor["type"]
    if kind == "Sequence":
        before: tuple[int, ...] = ()
        after: tuple[int, ...] = ()
        for step in post_processor["processors"]:
            step_before, step_after = affixes(step)
            before, after = step_before + before, after + step_after
        return before, after
    if kind in ("BertProcessing", "RobertaProcessing"):
        return (post_processor["cls"][1],), (post_processor["sep"][1],)
    if kind == "TemplateProcessing":
        pieces = post_processor["single"]
        place = next((number for number, piece in enumerate(pieces) if "Sequence" in piece), len(pieces))
        return _ids(post_processor, pieces[:place]), _ids(post_processor, pieces[place:])
    return (), ()


def _ids(template: Mapping[str, Any], pieces: list[dict[str, Any]]) -> tuple[int, ...]:
    names = [piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece]
    return tuple(number for name in names for number in template["special_tokens"][name]["ids"])


def conventional_eos(backend: Backend) -> int | None:
    """The special token that ends a text, by its name, where no file says."""
    special = {token.content: number for number, token in backend.added_tokens.items() if token.special}
    return next((special[name] for name in END_OF_TEXT if name in special), None)
