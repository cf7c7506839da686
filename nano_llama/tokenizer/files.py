"""The files of a tokenizer in a Hugging Face folder: read with their contradictions resolved, and written.

    tokenizer.json           the vocabulary, how text is split, what is put around it   document.py checks it
    tokenizer_config.json    which tokens are BOS, EOS ..., the chat template (or a list of them)
    special_tokens_map.json, added_tokens.json    the same and more tokens, in older folders    added_tokens.py
    chat_template.jinja      the chat template, if it has a file of its own
    chat_template.json       the same for a model with images, in folders before 2025; read where no other is there
    additional_chat_templates/NAME.jinja    further ones by name, such as tool_use
    generation_config.json, config.json      further ids that end an answer

A config's add_bos_token is not read: as in transformers, the post-processor of tokenizer.json decides.

Not here: GGUF (gguf.py). SentencePiece's tokenizer.model is not read.
Tests: tests/tokenizer/test_tokenizer_files.py, tests/tokenizer/test_added_tokens.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.files import write_json, write_text
from nano_llama.tokenizer.added_tokens import MAX_CONFIG_BYTES, add_companions, read_object
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.chat import Templates
from nano_llama.tokenizer.document import read_backend
from nano_llama.tokenizer.roles import Roles, affixes, conventional_eos

_CONFIGS = ("tokenizer_config.json", "generation_config.json", "config.json")
_ROLES = {"bos": "bos_token", "eos": "eos_token", "pad": "pad_token", "unk": "unk_token"}
_TEMPLATE_FILE, _TEMPLATE_FOLDER = "chat_template.jinja", "additional_chat_templates"
_PROCESSOR_TEMPLATE = "chat_template.json"
_LEFT_OVER = (_TEMPLATE_FILE, _PROCESSOR_TEMPLATE, "special_tokens_map.json", "added_tokens.json")


def read_folder(path: Path) -> tuple[Backend, Roles, Templates]:
    """What a folder, or a tokenizer.json with the files beside it, says: backend, roles, chat templates by name.

    A JSON file of another name is read alone.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise _no_tokenizer(path)
    backend = read_backend(file)
    if file.name != "tokenizer.json":
        return backend, _roles(backend, {}, ()), {}
    config, generation, model = (read_object(file.parent / name) for name in _CONFIGS)
    named = add_companions(backend, config, file.parent)
    stops = (*_ids(generation.get("eos_token_id")), *_ids(model.get("eos_token_id")))
    return backend, _roles(backend, named, stops), _chat_templates(config, file.parent)


def write_folder(folder: Path, backend: Backend, roles: Roles, templates: Templates) -> None:
    """Write tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer loads."""
    ids = {name: getattr(roles, role) for role, name in _ROLES.items()} | dict(roles.others)
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {name: backend.id_to_token(number) for name, number in ids.items() if number is not None}
    if set(templates) == {"default"}:
        config["chat_template"] = templates["default"]
    elif templates:
        config["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    write_text(folder / "tokenizer.json", backend.source)
    write_json(folder / "tokenizer_config.json", config)
    # Left by another model these would win over ours, or add to it.
    for left in (*map(folder.joinpath, _LEFT_OVER), *(folder / _TEMPLATE_FOLDER).glob("*.jinja")):
        left.unlink(missing_ok=True)


def _roles(backend: Backend, named: Mapping[str, str], stops: tuple[int, ...]) -> Roles:
    """named: which token plays which role; all are in the vocabulary."""
    ids = {name: backend.token_to_id(text) for name, text in named.items()}
    bos, eos, pad, unk = (ids.pop(name, None) for name in _ROLES.values())
    if eos is None:
        known = [number for number in stops if backend.id_to_token(number) is not None]
        eos = known[0] if known else conventional_eos(backend)
    prefix, suffix = affixes(backend.part("post_processor"))
    if bos is None and len(prefix) == 1:
        bos = prefix[0]
    others = tuple((name, number) for name, number in ids.items() if number is not None)
    return Roles(bos=bos, eos=eos, pad=pad, unk=unk, prefix=prefix, suffix=suffix, declared_stops=stops, others=others)


def _ids(value: Any) -> tuple[int, ...]:
    """eos_token_id is a number, or a list of them, or missing."""
    values = value if isinstance(value, list) else [value]
    return tuple(number for number in values if type(number) is int and number >= 0)


def _chat_templates(config: Mapping[str, Any], folder: Path) -> Templates:
    """By name; the one for plain conversations is "default". A file wins over tokenizer_config.json."""
    found = {path.stem: _template_text(path) for path in sorted((folder / _TEMPLATE_FOLDER).glob("*.jinja"))}
    if (folder / _TEMPLATE_FILE).is_file():
        return {"default": _template_text(folder / _TEMPLATE_FILE), **found}
    source, template = folder / "tokenizer_config.json", config.get("chat_template")
    if template is None:
        source = folder / _PROCESSOR_TEMPLATE
        template = read_object(source).get("chat_template")
    if isinstance(template, list):  # several by name
        entries = [entry for entry in template if isinstance(entry, dict)]
        pairs = [(entry.get("name"), entry.get("template")) for entry in entries]
        return {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)} | found
    if not isinstance(template, str | None):
        raise FormatError(f"{source}: chat_template is {type(template).__name__}, not a string.")
    return ({} if template is None else {"default": template}) | found


def _template_text(file: Path) -> str:
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise FormatError(
            f"{file}: a chat template of {file.stat().st_size:,} bytes; at most {MAX_CONFIG_BYTES:,} are read."
        )
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{file}: cannot be read as text ({error!s:.100}).") from None


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
