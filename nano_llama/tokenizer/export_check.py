"""A tokenizer compared with itself as read back from an export: equal ids on sample texts, or the user is told.

    other ids for plain text               the export is refused
    other ids beside an added token        a warning: GGUF, for one, has no lstrip, rstrip or single_word
    other ids around a text, other roles   a warning

Not here: the formats themselves (gguf.py). Tests: tests/tokenizer/test_export_check.py.
"""

import random
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from nano_llama.core.errors import UserError

if TYPE_CHECKING:
    from nano_llama.tokenizer.tokenizer import Tokenizer

# What normalizers, pre-tokenizers and decoders treat in different ways.
SAMPLES = (
    "Hello, world! It's 2024; 1234567890 and   42\n\n  indented\tby tabs \r\n",
    "don't DON'T we'LL I'm 'tis rock'n'roll",
    "  two spaces before, and two after  ",
    "cafe\u0301 caf\u00e9 A\u030a \u00c5 \u212b \u1e9b\u0323 \ufb01ne \u2460 \u00bd \uff21\uff22 \u00a0 \u3000wide",
    "STRASSE Straße İstanbul ISPARTA ΣΊΣΥΦΟΣ Ǆ",
    "日本語のテキスト。한국어 ไทย हिन्दी العربية עברית",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈👍🏽 a\u200db \u200b \ufeff \u00ad \u202e",
    "``quotes'' “curly” ‘single’ … — – x² m³ ™ №",
    "def f(x):\n    return x  # <tag/> && a->b != c; {}[]\\\\n\n",
    "A\n\n\n\nB \n C\x00\x1f\x7f",
    "word . Word , word ! it 's n't",
    "▁ ▁▁ <0x0A> [UNK] <unk>",
)
RANDOM_TEXTS, RANDOM_TOKENS = 150, 12
MAX_ADDED = 400  # added tokens that are tried out, spread evenly where there are more


def check_export(ours: "Tokenizer", again: "Tokenizer", what: str) -> None:
    """Compare. what: the format's name, for the messages. Raises UserError where plain text gets other ids."""
    normalizer = ours.backend.part("normalizer")
    for text in (*SAMPLES, *_random_texts(ours)):
        wanted, found = _ids(ours, text), _ids(again, text)
        if wanted != found:
            raise _other_ids(what, text, wanted, found, normalizer if ours.byte_level else None)
        if isinstance(wanted, list) and (lost := ours.decode(wanted)) != again.decode(wanted):
            raise UserError(
                f"{what} cannot hold this tokenizer: {lost!r:.60} would be decoded as {again.decode(wanted)!r:.60}.",
                hint=_INSTEAD,
            )
    if ours.byte_level and _does_something(normalizer):
        _warn(f"{what} has no normalizer; this one changed no sample text: {normalizer!r:.200}.")
    if _ids(ours, SAMPLES[0], None) != _ids(again, SAMPLES[0], None):
        _warn(
            f"{what} cannot say which ids this tokenizer puts around a text ({ours.roles.prefix}, {ours.roles.suffix})."
        )
    if differing := [token for token in _added(ours, again) if not _alike(ours, again, token)]:
        shown = ", ".join(map(repr, differing[:5])) + (f" and {len(differing) - 5} more" if len(differing) > 5 else "")
        _warn(
            f"{what} cannot say how these tokens treat the text beside them; it may get other ids there: {shown:.300}."
        )
    roles = [role for role in ("bos_id", "eos_id", "pad_id") if getattr(ours, role) != getattr(again, role)]
    if roles:
        _warn(f"{what} does not keep " + ", ".join(f"{role} = {getattr(ours, role)}" for role in roles) + ".")


_INSTEAD = "Export to hf or pth, which hold any tokenizer."


def _other_ids(what: str, text: str, wanted: Any, found: Any, normalizer: Any) -> UserError:
    cause = f" {what} has no normalizer, and this one has {normalizer!r:.150}." if normalizer else ""
    ids = f"{text!r:.60} is {_shown(wanted)} here, {_shown(found)} when read back"
    return UserError(f"{what} cannot hold this tokenizer: {ids}.{cause}", hint=_INSTEAD)


def _shown(ids: Any) -> str:
    return str(ids[:8])[:-1] + (", ...]" if len(ids) > 8 else "]") if isinstance(ids, list) else str(ids)


def _ids(tokenizer: "Tokenizer", text: str, add_bos: bool | None = False, parse_special: bool = False) -> Any:
    """The ids, or that there are none: text that a vocabulary cannot spell is refused."""
    try:
        return tokenizer.encode(text, add_bos=add_bos, parse_special=parse_special)
    except UserError:
        return "refused"


def _random_texts(tokenizer: "Tokenizer") -> Iterator[str]:
    """Texts of the vocabulary's own tokens, whatever language it knows."""
    draw = random.Random(0)
    plain = [number for number in range(tokenizer.vocab_size) if number not in tokenizer.backend.added_tokens]
    for _ in range(RANDOM_TEXTS if plain else 0):
        yield tokenizer.decode(draw.choices(plain, k=RANDOM_TOKENS))


def _added(ours: "Tokenizer", again: "Tokenizer") -> Iterable[str]:
    """Texts of added tokens that both know."""
    texts = [token.content for number, token in ours.backend.added_tokens.items() if number < again.vocab_size]
    return texts[:: -(-len(texts) // MAX_ADDED)] if texts else ()


def _alike(ours: "Tokenizer", again: "Tokenizer", token: str) -> bool:
    texts = (f"one {token} two", f"one{token}two", f"\n{token} \n {token}{token}", f"{token[:-1]} {token.upper()}")
    return all(
        _ids(ours, text, parse_special=special) == _ids(again, text, parse_special=special)
        for text in texts
        for special in (True, False)
    )


def _does_something(normalizer: Any) -> bool:
    if normalizer is None:
        return False
    return normalizer["type"] != "Sequence" or any(map(_does_something, normalizer["normalizers"]))


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)
