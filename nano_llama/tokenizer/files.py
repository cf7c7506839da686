"""The files of a tokenizer in a Hugging Face folder: read with their contradictions resolved, and written.

    tokenizer.json           the vocabulary, how text is split, what is put around it   document.py checks it
    tokenizer_config.json    which tokens are BOS, EOS ..., the chat template (or a list of them)
    chat_template.jinja      the chat template, if it has a file of its own
    generation_config.json, config.json      further ids that end an answer

A config's add_bos_token is not read: as in transformers, the post-processor of tokenizer.json decides.

Not here: GGUF (gguf.py). SentencePiece's tokenizer.model is not read.
Tests: tests/tokenizer/test_tokenizer_files.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.files import read_json, write_json, write_text
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.document import read_backend
from nano_llama.tokenizer.roles import Roles, affixes, conventional_eos

MAX_CONFIG_BYTES = 8 * 2**20
_CONFIGS = ("tokenizer_config.json", "generation_config.json", "config.json")
_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


def read_folder(path: Path) -> tuple[Backend, Roles, str | None]:
    """What a folder, or a tokenizer.json with the files beside it, says: backend, roles, chat template.

    A JSON file of another name is read alone.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise _no_tokenizer(path)
    backend = read_backend(file)
    if file.name != "tokenizer.json":
        return backend, _roles(backend, {}, ()), None
    config, generation, model = (_config(file.parent / name) for name in _CONFIGS)
    stops = (*_ids(generation.get("eos_token_id")), *_ids(model.get("eos_token_id")))
    return backend, _roles(backend, config, stops), _chat_template(config, file.parent)


def write_folder(folder: Path, backend: Backend, roles: Roles, chat_template: str | None) -> None:
    """Write tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer loads."""
    ids = dict(zip(_NAMES, (roles.bos, roles.eos, roles.pad, roles.unk), strict=True))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {name: backend.id_to_token(number) for name, number in ids.items() if number is not None}
    if chat_template is not None:
        config["chat_template"] = chat_template
    write_text(folder / "tokenizer.json", backend.source)
    write_json(folder / "tokenizer_config.json", config)
    (folder / "chat_template.jinja").unlink(missing_ok=True)  # one left by another model would win over ours


def _roles(backend: Backend, config: Mapping[str, Any], stops: tuple[int, ...]) -> Roles:
    bos, eos, pad, unk = (_token_id(backend, config, name) for name in _NAMES)
    if eos is None:
        known = [number for number in stops if backend.id_to_token(number) is not None]
        eos = known[0] if known else conventional_eos(backend)
    prefix, suffix = affixes(backend.part("post_processor"))
    if bos is None and len(prefix) == 1:
        bos = prefix[0]
    return Roles(bos=bos, eos=eos, pad=pad, unk=unk, prefix=prefix, suffix=suffix, declared_stops=stops)


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    config = read_json(path, what=path.name, max_bytes=MAX_CONFIG_BYTES)
    if not isinstance(config, dict):
        raise FormatError(f"{path}: its top level is not an object.")
    return config


def _token_id(backend: Backend, config: Mapping[str, Any], name: str) -> int | None:
    """The id of the token in a role, or None if the vocabulary lacks it."""
    token = config.get(name)
    if isinstance(token, dict):  # an AddedToken, written out
        token = token.get("content")
    if not isinstance(token, str | None):
        raise FormatError(f"tokenizer_config.json: {name} = {token!r:.60} is not a token.")
    if not token or (number := backend.token_to_id(token)) is None:
        return None
    if number not in backend.added_tokens:
        backend.add_special(token)  # as transformers does: it is then found as a whole
    return number


def _ids(value: Any) -> tuple[int, ...]:
    """eos_token_id is a number, or a list of them, or missing."""
    values = value if isinstance(value, list) else [value]
    return tuple(number for number in values if type(number) is int and number >= 0)


def _chat_template(config: Mapping[str, Any], folder: Path) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise FormatError(
                f"{file}: a chat template of {file.stat().st_size:,} bytes; at most {MAX_CONFIG_BYTES:,} are read."
            )
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FormatError(f"{file}: cannot be read as text ({error!s:.100}).") from None
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name; the one for plain conversations is "default"
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if not isinstance(template, str | None):
        raise FormatError(
            f"{folder / 'tokenizer_config.json'}: chat_template is {type(template).__name__}, not a string."
        )
    return template


def _no_tokenizer(folder: Path) -> UserError:
    if (folder / "tokenizer.model").is_file():
        return UserError(
            f"{folder} has a tokenizer.model (SentencePiece) but no tokenizer.json.",
            hint="Let transformers write one:  AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        )
    return UserError(
        f"{folder} has no tokenizer.json.",
        hint="Give the folder of a model or tokenizer, a tokenizer.json, or a .gguf.",
    )
