"""Added tokens that the files beside a tokenizer.json name, given to the vocabulary as transformers gives them.

    tokenizer_config.json    added_tokens_decoder: id -> token. Where it is there, the next two files are not read.
    special_tokens_map.json  the special tokens' names; they win over those of tokenizer_config.json
    added_tokens.json        token -> id, in folders of 2023; an id that tokenizer.json gives away is tokenizer.json's
    tokenizer_config.json    bos_token, pad_token, image_token ..., additional_special_tokens: what no file above has
                             listed comes last, with the next free ids

An id that a file names and the vocabulary cannot give is an error: a model was trained with that id. A token that
tokenizer.json has already keeps its id there, with a warning. (Source: `_from_pretrained` of transformers 5.)

Tests: tests/tokenizer/test_added_tokens.py.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from nano_llama.core.errors import FormatError
from nano_llama.core.files import read_json
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.document import MAX_ADDED_CHARACTERS, MAX_ADDED_TOKENS, MAX_TOKENS

MAX_CONFIG_BYTES = 8 * 2**20
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_CONFIG, _MAP, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

Listed = dict[int, AddedToken]


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file whose top level is an object; {} where there is no such file."""
    if not path.is_file():
        return {}
    content = read_json(path, what=path.name, max_bytes=MAX_CONFIG_BYTES)
    if not isinstance(content, dict):
        raise FormatError(f"{path}: its top level is not an object.")
    return content


def add_companions(backend: Backend, config: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Give the backend the tokens that the folder's files name -> which token plays which named role.

    config: what tokenizer_config.json holds. Raises FormatError, naming file and token.
    """
    by_id = config.get("added_tokens_decoder")
    settings = dict(config) if "added_tokens_decoder" in config else {**config, **read_object(folder / _MAP)}
    named, extra = _named(settings, folder), _extra(config, settings)
    if "added_tokens_decoder" in config:
        source, listed = folder / _CONFIG, _decoder(by_id, str(folder / _CONFIG))
    else:
        special = {token.content for token in (*named.values(), *extra)}
        source, listed = folder / _ADDED, _legacy(folder / _ADDED, special) | backend.added_tokens
    known = {token.content for token in listed.values()}
    known |= {token.content for token in backend.added_tokens.values()}
    unlisted = {token.content: token for token in (*named.values(), *extra) if token.content not in known}
    _add_listed(backend, listed, {token.content for token in named.values()}, source)
    for text, token in unlisted.items():
        if backend.token_to_id(text) is None:
            warnings.warn(
                f"{folder / _CONFIG} names the token {text!r:.60}, which the vocabulary lacks:"
                " it gets the next free id, as in transformers.",
                stacklevel=2,
            )
        backend.add_tokens([token])
    return {name: token.content for name, token in named.items()}


def _add_listed(backend: Backend, listed: Listed, roles: set[str], path: Path) -> None:
    """Add, in the order of their ids, those that the backend lacks or has with other flags; then check the ids.

    What plays one of the roles becomes a special token.
    """
    before = {number: backend.token_to_id(token.content) for number, token in listed.items()}
    present = {repr(token) for token in backend.added_tokens.values()}
    for token in listed.values():
        token.special = token.special or token.content in roles
    backend.add_tokens([token for _, token in sorted(listed.items()) if repr(token) not in present])
    for number, token in listed.items():
        given = backend.token_to_id(token.content)
        if given == number:
            continue
        if before[number] is None:
            owner = backend.id_to_token(number)
            raise FormatError(
                f"{path}: the added token {token.content!r:.60} has the id {number},"
                f" {'which leaves a gap' if owner is None else f'which {owner!r:.60} has in tokenizer.json'}:"
                f" the tokenizers library would give it {given}.",
                hint="The folder's files contradict each other: which of them belongs to this model?",
            )
        warnings.warn(
            f"{path}: the token {token.content!r:.60} has the id {number} there and {given} in tokenizer.json,"
            " which counts.",
            stacklevel=2,
        )


# -- what the files say -----------------------------------------------------------------------------------------------


def _decoder(content: Any, where: str) -> Listed:
    """`added_tokens_decoder`: {"32000": {"content": "<|im_start|>", "special": true, ...}}"""
    if not isinstance(content, dict):
        raise FormatError(f"{where}: added_tokens_decoder is not an object.")
    listed: Listed = {}
    for key, value in content.items():
        number = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else key
        listed[_checked_id(number, where)] = _token(value, where, f"added_tokens_decoder[{key!r:.12}]")
    return _bounded(listed, where)


def _legacy(path: Path, special: set[str]) -> Listed:
    """added_tokens.json: {"<|im_start|>": 32000}"""
    listed: Listed = {}
    for text, number in read_object(path).items():
        if not text:
            raise FormatError(f"{path}: a token without text.")
        is_special = text in special
        listed[_checked_id(number, str(path))] = AddedToken(text, normalized=not is_special, special=is_special)
    return _bounded(listed, str(path))


def _named(settings: Mapping[str, Any], folder: Path) -> dict[str, AddedToken]:
    """The tokens that play a role by name: the usual seven, and a model's own, such as image_token."""
    found: dict[str, AddedToken] = {}
    own = settings.get("extra_special_tokens")
    further = dict(own) if isinstance(own, dict) else {}
    names = [name for name in settings if name.endswith("_token") and isinstance(settings[name], str | dict)]
    for name in dict.fromkeys((*NAMED, *names, *further)):
        value = further.get(name, settings.get(name))
        if value is None or value == "":
            continue
        found[name] = _token(value, str(folder / _CONFIG), name, special=True)
    return found


def _extra(config: Mapping[str, Any], settings: Mapping[str, Any]) -> list[AddedToken]:
    """Special tokens without a role: extra_special_tokens, or additional_special_tokens as it was called before."""
    listed = config.get("extra_special_tokens") or config.get("additional_special_tokens")
    if not isinstance(listed, list):
        listed = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    if not isinstance(listed, list):
        return []
    return [_token(value, _CONFIG, "additional_special_tokens", special=True) for value in listed]


def _token(value: Any, where: str, name: str, special: bool = False) -> AddedToken:
    """A token written as its text, or with its flags. special: in any case."""
    if isinstance(value, str) and value:
        return AddedToken(value, special=True)
    text = value.get("content") if isinstance(value, dict) else None
    if not isinstance(text, str) or not text:
        raise FormatError(f"{where}: {name} = {value!r:.60} is not a token.")
    flags = {flag: value[flag] for flag in _FLAGS if flag in value}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise FormatError(f"{where}: {name} = {value!r:.100} has a flag that is neither true nor false.")
    return AddedToken(text, **(flags | {"special": True} if special else flags))


def _checked_id(number: Any, where: str) -> int:
    if type(number) is not int or not 0 <= number < MAX_TOKENS:
        raise FormatError(f"{where}: an added token has the id {number!r:.40}; 0 to {MAX_TOKENS - 1:,} are possible.")
    return number


def _bounded(listed: Listed, where: str) -> Listed:
    characters = sum(len(token.content) for token in listed.values())
    if len(listed) > MAX_ADDED_TOKENS or characters > MAX_ADDED_CHARACTERS:
        raise FormatError(f"{where}: {len(listed):,} added tokens with {characters:,} characters are too many.")
    return listed
