"""A tokenizer from a GGUF file's metadata, and to it for an export that llama.cpp reads.

    tokenizer.ggml.model     "gpt2": byte-level BPE   "llama": SentencePiece BPE with byte fallback
    tokenizer.ggml.pre       how text is split into words (pretokenizers.py); for "gpt2" only
    tokenizer.ggml.tokens    id -> token
    tokenizer.ggml.token_type    1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    tokenizer.ggml.merges    "left right", first the most frequent; for "gpt2" only
    tokenizer.ggml.scores    a higher score merges first; for "llama" only
    tokenizer.ggml.bos_token_id, eos_token_id, ... add_bos_token, add_eos_token, add_space_prefix
    tokenizer.chat_template, chat_templates (names), chat_template.NAME

Where a file says nothing, llama.cpp's defaults hold (its llama-vocab.cpp defines the format in practice).

Tests: tests/tokenizer/test_gguf_tokenizer.py, test_gguf_export.py.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from nano_llama.core.errors import FormatError, UserError
from nano_llama.formats.gguf_split import open_gguf
from nano_llama.tokenizer.backend import Backend, rust_errors
from nano_llama.tokenizer.chat import Templates
from nano_llama.tokenizer.document import MAX_TOKENS
from nano_llama.tokenizer.export_check import check_export
from nano_llama.tokenizer.pretokenizers import name_of, recipe_named
from nano_llama.tokenizer.roles import Roles
from nano_llama.tokenizer.sentencepiece import Merge, merges_from_scores, scores_from_merges
from nano_llama.tokenizer.token_bytes import BYTE_TOKEN

if TYPE_CHECKING:
    from nano_llama.tokenizer.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
# Tokens that llama.cpp takes for control tokens by their text, since some converters typed them as words: the ends of
# a text or a turn, and what surrounds a hole to fill.
CONTROL_LOOKING = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
    *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<eos>"),
    *(
        "<end_of_utterance>",
        "<｜end▁of▁sentence｜>",
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<PRE>",
        "▁<PRE>",
    ),
    *("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<SUF>", "▁<SUF>", "<|fim_middle|>", "<fim-middle>"),
    *("<fim_middle>", "<MID>", "▁<MID>"),
)
BYTES = {f"<0x{byte:02X}>": BYTE for byte in range(256)}
_SPACE = "▁"
_ID_KEYS = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}
_SENTENCEPIECE_IDS = {"bos": 1, "eos": 2, "unk": 0}


def read_gguf(path: Path) -> tuple[Backend, Roles, Templates]:
    """The tokenizer of a GGUF file: backend, roles, chat templates by name."""
    file = open_gguf(path)
    try:
        return from_metadata(file.metadata, str(path))
    finally:
        file.close()


def from_metadata(metadata: Mapping[str, Any], where: str = "GGUF") -> tuple[Backend, Roles, Templates]:
    """The same from the metadata alone. Raises FormatError for a kind that is not read here, and for damage."""
    read = _Reader(metadata, where)
    model = read.get("ggml.model", str)
    if model not in ("gpt2", "llama"):
        raise FormatError(f"{where}: the tokenizer model {model!r:.40} is not read here; gpt2 and llama are.")
    tokens = read.tokens()
    types = read.numbers("ggml.token_type", len(tokens), default=NORMAL)
    ids = {role: read.token_id(f"ggml.{key}", len(tokens)) for role, key in _ID_KEYS.items()}
    if model == "llama":
        usual = {role: number for role, number in _SENTENCEPIECE_IDS.items() if number < len(tokens)}
        ids = {role: usual.get(role) if number is None else number for role, number in ids.items()}
        types = _types_by_text(tokens, types, {text: CONTROL for text in CONTROL_LOOKING} | BYTES)
        library = _sentencepiece(read, tokens, types, ids["unk"])
        adds_bos = True
    else:
        recipe = recipe_named(read.get("ggml.pre", str, "default"), where)
        merges = read.merges()
        words = {left + right for left, right in merges}  # plain text may become these: they are not control tokens
        types = _types_by_text(tokens, types, {text: CONTROL for text in CONTROL_LOOKING if text not in words})
        with rust_errors(f"{where}: its vocabulary and merges"):
            vocab = {token: number for number, token in enumerate(tokens)}
            library = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=recipe.ignore_merges))
        library.pre_tokenizer = recipe.build()
        library.decoder = decoders.ByteLevel()
        adds_bos = recipe.adds_bos
    _add_tokens(library, tokens, types)
    backend = Backend(library)
    prefix = ids["bos"] if read.get("ggml.add_bos_token", bool, adds_bos) else None
    suffix = ids["eos"] if read.get("ggml.add_eos_token", bool, False) else None
    if prefix is not None or suffix is not None:
        backend.set_affixes(prefix, suffix)
    stops = tuple(
        number for key in ("eot", "eom") if (number := read.token_id(f"ggml.{key}_token_id", len(tokens))) is not None
    )
    roles = Roles(
        bos=ids["bos"],
        eos=ids["eos"],
        pad=ids["pad"],
        unk=ids["unk"],
        prefix=() if prefix is None else (prefix,),
        suffix=() if suffix is None else (suffix,),
        declared_stops=stops,
    )
    return backend, roles, read.templates()


def tokenizer_to_gguf(tokenizer: "Tokenizer", vocab_size: int | None = None) -> dict[str, Any]:
    """The `tokenizer.*` metadata of a GGUF file: key -> str, bool, int (u32), list of str, int (i32) or float (f32).

    vocab_size: rows of the model's embedding; ids beyond the tokenizer's are written as unused tokens, added tokens
    beyond the embedding are left out. What is written is read back and compared (export_check.py).
    Raises UserError, naming what GGUF cannot hold: char level, other models than BPE, an unknown pre-tokenizer, a
    normalizer.
    """
    backend = tokenizer.backend
    if tokenizer.kind != "bpe":
        raise UserError(
            f"GGUF cannot hold a tokenizer of kind {tokenizer.kind!r}, only BPE.",
            hint="Export to hf or pth, or train with a byte-level BPE: --tokenizer bpe:4096.",
        )
    size = vocab_size or tokenizer.vocab_size
    _check_size(tokenizer, size)
    known = [backend.id_to_token(number) for number in range(size)]
    metadata: dict[str, Any] = {
        "tokenizer.ggml.tokens": [f"[PAD{number}]" if token is None else token for number, token in enumerate(known)],
        "tokenizer.ggml.token_type": [_type_of(tokenizer, number, token) for number, token in enumerate(known)],
        "tokenizer.ggml.add_bos_token": tokenizer.bos_id is not None and tokenizer.roles.prefix == (tokenizer.bos_id,),
        "tokenizer.ggml.add_eos_token": tokenizer.eos_id is not None and tokenizer.roles.suffix == (tokenizer.eos_id,),
    }
    listed = backend.document["model"]["merges"]  # pairs; older files of the library have "left right"
    merges: list[Merge] = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in listed]
    if tokenizer.byte_level:
        metadata |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": _pre_name(tokenizer)}
        metadata["tokenizer.ggml.merges"] = [" ".join(merge) for merge in merges]
    else:
        metadata |= {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default"}
        metadata["tokenizer.ggml.add_space_prefix"] = _space_prefix(tokenizer)
        mergeable = [kind in (NORMAL, UNUSED) for kind in metadata["tokenizer.ggml.token_type"]]
        metadata["tokenizer.ggml.scores"] = scores_from_merges(metadata["tokenizer.ggml.tokens"], mergeable, merges)
    for role, key in _ID_KEYS.items():
        number = getattr(tokenizer.roles, role)
        if number is not None and number < size:
            metadata[f"tokenizer.ggml.{key}"] = number
    further = {name: text for name, text in tokenizer.chat_templates.items() if name != "default"}
    if tokenizer.chat_template is not None:
        metadata["tokenizer.chat_template"] = tokenizer.chat_template
    if further:
        metadata["tokenizer.chat_templates"] = list(further)
        metadata |= {f"tokenizer.chat_template.{name}": text for name, text in further.items()}
    try:
        again = type(tokenizer)(*from_metadata(metadata))
    except FormatError as error:
        raise UserError(f"GGUF cannot hold this tokenizer: {error.message}", hint=error.hint) from error
    check_export(tokenizer, again, "GGUF")
    return metadata


# -- reading ----------------------------------------------------------------------------------------------------------


def _sentencepiece(read: "_Reader", tokens: list[str], types: Sequence[int], unk: int | None) -> tokenizers.Tokenizer:
    """Llama 2's kind: spaces are "▁", one is put before a text, and what has no token is encoded in bytes."""
    mergeable = [kind in (NORMAL, UNUSED) for kind in types]
    merges = merges_from_scores(tokens, mergeable, read.numbers("ggml.scores", len(tokens), default=0.0))
    has_bytes = BYTE in types
    with rust_errors(f"{read.where}: its vocabulary and scores"):
        library = tokenizers.Tokenizer(
            models.BPE(
                vocab={token: number for number, token in enumerate(tokens)},
                merges=merges,
                unk_token=None if unk is None else tokens[unk],
                fuse_unk=True,
                byte_fallback=has_bytes,
            )
        )
    prefixed = read.get("ggml.add_space_prefix", bool, True)
    spaces = [normalizers.Replace(" ", _SPACE)]
    library.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), *spaces] if prefixed else spaces)
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    library.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
    return library


def _types_by_text(tokens: list[str], types: Sequence[int], texts: Mapping[str, int]) -> list[int]:
    """The types that llama.cpp works with: some tokens it knows by their text, whatever a file says of them."""
    return [texts.get(token, kind) for token, kind in zip(tokens, types, strict=True)]


def _add_tokens(library: tokenizers.Tokenizer, tokens: list[str], types: Sequence[int]) -> None:
    """Control tokens are special; user-defined ones are found in any text."""
    for token, kind in zip(tokens, types, strict=True):
        if kind in (CONTROL, UNKNOWN):
            library.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif kind == USER_DEFINED:
            library.add_tokens([AddedToken(token, special=False, normalized=False)])


class _Reader:
    """Metadata under `tokenizer.`, each value's type checked when it is read."""

    def __init__(self, metadata: Mapping[str, Any], where: str):
        self.metadata, self.where = metadata, where

    def get(self, key: str, kind: type, *default: Any) -> Any:
        value = self.metadata.get(f"tokenizer.{key}", *default)
        if value is None and default:
            return default[0]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.bad(key, value, kind.__name__)
        return value

    def templates(self) -> dict[str, str]:
        """Chat templates by name. A name without a text is left out, as a list of names alone says nothing."""
        found = {"default": self.get("chat_template", str, None)}
        names = self.strings("chat_templates") if "tokenizer.chat_templates" in self.metadata else []
        found |= {name: self.get(f"chat_template.{name}", str, None) for name in names}
        return {name: text for name, text in found.items() if text is not None}

    def token_id(self, key: str, count: int) -> int | None:
        """The id of a special token. One that is not a token counts as missing, as in llama.cpp."""
        value = self.get(key, int, None)
        if value is not None and not 0 <= value < count:
            warnings.warn(
                f"{self.where}: tokenizer.{key} = {value} is ignored: it is not one of the {count:,} tokens.",
                stacklevel=4,
            )
            return None
        return value

    def strings(self, key: str) -> list[str]:
        value = self.metadata.get(f"tokenizer.{key}")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.bad(key, value, "a list of strings")
        return value

    def tokens(self) -> list[str]:
        """The vocabulary. llama.cpp names an empty token by its id, and accepts no token twice."""
        tokens = [token or f"[EMPTY_{number}]" for number, token in enumerate(self.strings("ggml.tokens"))]
        if not 0 < len(tokens) <= MAX_TOKENS:
            raise FormatError(f"{self.where}: {len(tokens):,} tokens; 1 to {MAX_TOKENS:,} are possible.")
        if len(set(tokens)) != len(tokens):
            first = {token: number for number, token in reversed(list(enumerate(tokens)))}
            twice = next(token for number, token in enumerate(tokens) if first[token] != number)
            raise FormatError(f"{self.where}: the token {twice!r:.60} occurs twice in its vocabulary.")
        return tokens

    def merges(self) -> list[tuple[str, str]]:
        """A token may be a space itself, so the space that separates is looked for after the first character."""
        found = []
        for merge in self.strings("ggml.merges"):
            place = merge.find(" ", 1)
            if place < 0:
                raise FormatError(f"{self.where}: the merge {merge!r:.60} is not a pair of tokens.")
            found.append((merge[:place], merge[place + 1 :]))
        return found

    def numbers(self, key: str, count: int, default: float) -> list[Any]:
        """One number per token, from a NumPy array or a list; the default if there is neither."""
        value = self.metadata.get(f"tokenizer.{key}")
        if value is None:
            return [default] * count
        listed = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(listed, list) or not all(type(item) in (int, float) for item in listed):
            raise self.bad(key, value, "a list of numbers")
        if len(listed) != count:
            raise FormatError(f"{self.where}: tokenizer.{key} has {len(listed):,} entries for {count:,} tokens.")
        return listed

    def bad(self, key: str, value: Any, expected: str) -> FormatError:
        return FormatError(f"{self.where}: tokenizer.{key} is {value!r:.60}; {expected} was expected.")


# -- writing ----------------------------------------------------------------------------------------------------------


def _check_size(tokenizer: "Tokenizer", size: int) -> None:
    """llama.cpp loads no model with more tokens than rows: added tokens are left out, others cannot be."""
    beyond = [number for number in range(size, tokenizer.vocab_size) if tokenizer.backend.id_to_token(number)]
    if not beyond:
        return
    texts = ", ".join(repr(tokenizer.backend.id_to_token(number)) for number in beyond[:5])
    texts += f" and {len(beyond) - 5} more" if len(beyond) > 5 else ""
    if not tokenizer.backend.added_tokens.keys() >= set(beyond):
        raise UserError(
            f"The tokenizer has {tokenizer.vocab_size:,} tokens, but the model's embedding {size:,} rows: {texts:.200}"
            " would have no vector.",
            hint="Give the tokenizer that the model was trained with, or export without one.",
        )
    warnings.warn(
        f"Left out of the GGUF, because the model's embedding of {size:,} rows has none for them: {texts:.200}.",
        stacklevel=4,
    )


def _type_of(tokenizer: "Tokenizer", number: int, token: str | None) -> int:
    if token is None:
        return UNUSED
    if number in tokenizer.special_ids:
        return UNKNOWN if number == tokenizer.unk_id and not tokenizer.byte_level else CONTROL
    if number in tokenizer.backend.added_tokens:
        return USER_DEFINED
    return BYTE if not tokenizer.byte_level and BYTE_TOKEN.fullmatch(token) else NORMAL


def _pre_name(tokenizer: "Tokenizer") -> str:
    backend = tokenizer.backend
    cut = backend.part("pre_tokenizer")
    name = name_of(cut, bool(backend.model.ignore_merges))
    if name is None:
        raise UserError(f"GGUF has no name for this tokenizer's pre-tokenizer: {cut!r:.300}.")
    return name


def _space_prefix(tokenizer: "Tokenizer") -> bool:
    """Whether a space is put before a text, from a tokenizer.json of Llama 2's kind."""
    normalizer, cut = tokenizer.backend.part("normalizer"), tokenizer.backend.part("pre_tokenizer")
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer or {}]
    replaces = any(step.get("type") == "Replace" and step.get("content") == _SPACE for step in steps)
    if cut is None and replaces:
        return any(step.get("type") == "Prepend" for step in steps)
    if cut is not None and cut["type"] == "Metaspace" and normalizer is None and not cut.get("split"):
        return cut["prepend_scheme"] != "never"
    raise UserError(
        f"GGUF cannot hold this tokenizer's normalizer and pre-tokenizer: {normalizer!r:.150}, {cut!r:.150}."
    )
