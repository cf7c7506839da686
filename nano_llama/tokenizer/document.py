"""tokenizer.json, read as an untrusted file: checked piece by piece before the library sees it.

The library trusts what a file says; some files make it panic, and one kind ends the whole process (a BPE with a
`continuing_subword_prefix` cuts strings at byte offsets). So everything that it would index, slice or multiply by is
checked here first, and refused by name.

Tests: tests/tokenizer/test_hostile.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers

from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.files import MAX_JSON_BYTES
from nano_llama.tokenizer.backend import Backend, rust_errors

# The largest vocabularies in use have 262,144 tokens and about 600,000 merges. Beyond these bounds a file would cost
# more memory than it is worth: Python's smallest list takes 56 bytes for the 2 it has in JSON.
MAX_TOKENS = 2**21
MAX_CONTAINERS = 1_500_000
MAX_ELEMENTS = 4_000_000
MAX_ADDED_TOKENS = 65_536
MAX_ADDED_CHARACTERS = 2**20
MAX_GROWTH = 256  # times that normalizing or decoding may lengthen a text

MODELS = ("BPE", "WordLevel", "WordPiece", "Unigram")
PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def read_backend(path: Path) -> Backend:
    """Read a tokenizer.json. Raises UserError where it cannot be opened, FormatError for anything else."""
    data = _read(path)
    try:
        source = data.decode()
        document = json.loads(source, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path}: not a valid tokenizer.json ({error!s:.200}).",
            hint="Give a tokenizer.json, a folder that holds one, or (to train one on your text) char or bpe:4096.",
        ) from None
    return build(source, document, str(path))


def build(source: str, document: Any, where: str) -> Backend:
    """A backend from the text of a tokenizer.json and the same text parsed. `where` names it in errors."""
    try:
        check(document)
    except _Bad as error:
        raise FormatError(f"{where}: not a tokenizer.json that can be used: {error}.", hint=error.hint) from None
    with rust_errors(f"Reading {where}"):
        library = tokenizers.Tokenizer.from_str(source)
    for token in document.get("added_tokens") or ():
        given = library.token_to_id(token["content"])
        if given != token["id"]:
            raise FormatError(
                f"{where}: the added token {token['content']!r:.60} has id {token['id']}, which leaves a gap:"
                f" the tokenizers library would give it {given}."
            )
    return Backend(library)


def check(document: Any) -> None:
    """Raise _Bad for what the library would panic at, run out of memory on, or silently misread."""
    _expect(isinstance(document, dict), "its top level is not an object")
    model = document.get("model")
    _expect(isinstance(model, dict), "it has no model")
    kind = _model_kind(model)
    tokens = _check_vocab(model.get("vocab"), kind)
    added = _check_added(document.get("added_tokens") or [], tokens)
    if kind == "BPE":
        _check_merges(model, tokens, added)
    for part in PARTS:
        _check_part(document.get(part), part, depth=0)
    growth = 1.0
    for step in [*_steps(document.get("normalizer")), *_steps(document.get("decoder"))]:
        growth *= _growth(step)
    _expect(growth <= MAX_GROWTH, f"its normalizer and decoder may lengthen a text {growth:,.0f} times")


def _model_kind(model: dict[str, Any]) -> str:
    """BPE, WordLevel, WordPiece or Unigram."""
    kind = model.get("type")
    if kind is None:  # the oldest files do not say
        kind = "BPE" if "merges" in model else "Unigram" if isinstance(model.get("vocab"), list) else "WordPiece"
    _expect(kind in MODELS, f"its model is {kind!r:.40}; known are {', '.join(MODELS)}")
    return kind


def _check_vocab(vocab: Any, kind: str) -> dict[str, int]:
    if kind == "Unigram":
        _expect(isinstance(vocab, list) and bool(vocab), "its Unigram vocabulary is not a list of [token, score]")
        for entry in vocab:
            if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and _is_number(entry[1])):
                raise _Bad(f"{entry!r:.60} is not a [token, score]")
        vocab = {entry[0]: number for number, entry in enumerate(vocab)}
    _expect(isinstance(vocab, dict), "its vocabulary is not an object of token: id")
    _expect(bool(vocab), "its vocabulary is empty")
    seen: dict[int, str] = {}
    for token, number in vocab.items():  # hundreds of thousands of iterations: messages are built only when needed
        if not _is_id(number):
            raise _Bad(f"the token {token!r:.60} has the id {number!r:.40}; 0 to {MAX_TOKENS - 1:,} are possible")
        if number in seen:
            raise _Bad(f"the tokens {seen[number]!r:.60} and {token!r:.60} share the id {number}")
        seen[number] = token
    return vocab


def _check_merges(model: dict[str, Any], tokens: dict[str, int], added: set[str]) -> None:
    _expect(
        not model.get("continuing_subword_prefix"),
        "it is a BPE with continuing_subword_prefix, which no LLaMA tokenizer uses",
    )
    unknown = model.get("unk_token")
    _expect(
        unknown is None or str(unknown) in tokens or str(unknown) in added,
        f"its unk_token {unknown!r:.60} is not one of its tokens",
    )
    merges = model.get("merges")
    _expect(isinstance(merges, list), "its merges are not a list")
    for merge in merges or ():
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is type(pair[1]) is str):
            raise _Bad(f"the merge {merge!r:.60} is not a pair of tokens")
        for token in (pair[0], pair[1], pair[0] + pair[1]):
            if token not in tokens:
                raise _Bad(f"the merge {merge!r:.60} needs the token {token!r:.60}, which is not in the vocabulary")


def _check_added(added: Any, tokens: dict[str, int]) -> set[str]:
    """The texts of the added tokens."""
    _expect(isinstance(added, list), "its added_tokens are not a list")
    _expect(len(added) <= MAX_ADDED_TOKENS, f"it adds {len(added):,} tokens; at most {MAX_ADDED_TOKENS:,} are read")
    seen_ids: dict[int, str] = {}
    seen_texts: dict[str, int] = {}
    owner = {number: token for token, number in tokens.items()}
    for token in added:
        _expect(isinstance(token, dict), f"the added token {token!r:.60} is not an object")
        text, number = token.get("content"), token.get("id")
        _expect(isinstance(text, str) and text != "", f"the added token {token!r:.80} has no text")
        _expect(_is_id(number), f"the added token {text!r:.60} has the id {number!r:.40}")
        other = seen_ids.get(number, owner.get(number, text))
        _expect(other == text, f"the tokens {other!r:.60} and {text!r:.60} share the id {number}")
        earlier = seen_texts.get(text, number)
        _expect(earlier == number, f"the added token {text!r:.60} occurs twice, with the ids {earlier} and {number}")
        _expect(
            tokens.get(text, number) == number, f"the token {text!r:.60} has the ids {tokens.get(text)} and {number}"
        )
        seen_ids[number] = text
        seen_texts[text] = number
    total = sum(map(len, seen_texts))
    _expect(total <= MAX_ADDED_CHARACTERS, f"its added tokens have {total:,} characters")
    return set(seen_texts)


def _check_part(part: Any, name: str, depth: int) -> None:
    """The parts are small trees of {"type": ...}; the library checks the rest of their fields itself."""
    if part is None:
        return
    _expect(isinstance(part, dict) and isinstance(part.get("type"), str), f"its {name} is not an object with a type")
    _expect(depth < 16, f"its {name} is nested deeper than 16")
    for step in _children(part):
        _check_part(step, name, depth + 1)
    if part["type"] == "TemplateProcessing":
        _check_template(part, name)


def _check_template(part: dict[str, Any], name: str) -> None:
    """A template names special tokens: `single` and `pair` are lists of pieces, `special_tokens` says their ids."""
    known = part.get("special_tokens")
    if not isinstance(known, dict):
        raise _Bad(f"its {name} has no special_tokens")
    for pieces in (part.get("single"), part.get("pair")):
        if not isinstance(pieces, list) or not all(isinstance(piece, dict) for piece in pieces):
            raise _Bad(f"its {name} has no template")
        for special in (piece["SpecialToken"] for piece in pieces if "SpecialToken" in piece):
            token = special.get("id") if isinstance(special, dict) else None
            _expect(
                isinstance(token, str) and token in known, f"its {name} uses {token!r:.60}, which it does not define"
            )
    for token in known.values():
        ids = token.get("ids") if isinstance(token, dict) else None
        usable = isinstance(ids, list) and len(ids) <= 64 and all(map(_is_id, ids))
        _expect(usable, f"its {name} has a special token without valid ids: {token!r:.80}")


def _children(part: dict[str, Any]) -> list[Any]:
    if part.get("type") != "Sequence":
        return []
    lists = [value for value in part.values() if isinstance(value, list)]
    _expect(len(lists) == 1, "a Sequence has no list of steps")
    _expect(len(lists[0]) <= 64, f"a Sequence has {len(lists[0]):,} steps")
    return lists[0]


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a part, with Sequences flattened."""
    if isinstance(part, dict):
        yield part
        for step in _children(part):
            yield from _steps(step)


def _growth(step: dict[str, Any]) -> float:
    """How many times longer a text may become in this step. Two harmless-looking ones in a row multiply."""
    kind = step.get("type")
    if kind == "Replace":
        pattern = step.get("pattern")
        found = pattern.get("String") if isinstance(pattern, dict) else None
        written = len(str(step.get("content")))
        return (
            max(1.0, written / len(found)) if isinstance(found, str) and found else 1.0 + written
        )  # a regex may match ""
    if kind == "Prepend":
        return 1.0 + len(str(step.get("prepend"))) / 16
    return {"NFKD": 4.0, "NFKC": 4.0, "NFD": 4.0, "ByteLevel": 2.0}.get(str(kind), 1.0)


class _Bad(Exception):
    """What is wrong with the document; `build` adds its name."""

    hint = "Is the file damaged, or made by another program?"


def _expect(condition: bool, complaint: str) -> None:
    if not condition:
        raise _Bad(complaint)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_TOKENS


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # with the same value it says nothing new
        twice = next((name for name, value in pairs if found[name] != value), None)
        if twice is not None:
            raise ValueError(f"the name {twice!r:.60} occurs twice in one object")
    return found


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise FormatError(
                f"{path}: a tokenizer.json of {path.stat().st_size:,} bytes; at most {MAX_JSON_BYTES:,} are read."
            )
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: {error.strerror or error}.", hint="A tokenizer.json was expected there."
        ) from error
    containers, elements = data.count(b"[") + data.count(b"{"), data.count(b",")
    if containers > MAX_CONTAINERS or elements > MAX_ELEMENTS:
        raise FormatError(
            f"{path}: {containers:,} lists and objects with {elements:,} elements: too many for a tokenizer."
        )
    return data
