"""Models by their name on the Hugging Face hub: downloaded once into the hub's own cache, then found there.

    org/name                    its config, safetensors (or else pytorch_model.bin) and tokenizer
    org/name/file.gguf          one GGUF file of a repository, with all its parts if it is split
    org/name@revision           a branch, tag or commit; a commit pins the exact bytes

Not here: reading what was downloaded. Extra `hub`. Tests: tests/formats/test_hub.py, against a loopback server.
"""

import re
from pathlib import Path
from typing import Any

from nano_llama.core.env import offline
from nano_llama.core.errors import EnvironmentFault, UserError, import_extra
from nano_llama.formats.gguf_split import part_names

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(/(?P<file>[\w./-]+\.gguf))?(@(?P<revision>[\w./-]+))?")
# What is downloaded: what we read, not the same weights again in other formats.
_WANTED = [
    "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json",
    "model-*-of-*.safetensors", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "additional_chat_templates/*.jinja",
]  # fmt: skip
_OLD_WANTED = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"]  # without safetensors


def is_hub_name(name: str) -> bool:
    """True for what could be a hub name: org/name, org/name/file.gguf, each perhaps with @revision."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def download(
    name: str,
    revision: str | None = None,
    progress: bool = True,
    *,
    endpoint: str | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """The local folder (or .gguf) of a hub name, downloaded if it is not yet in the cache.

    revision: wins over one in the name. progress: bars on stderr. endpoint, cache_dir: the hub library's defaults.
    Offline (NANO_LLAMA_OFFLINE=1 or HF_HUB_OFFLINE=1) only the cache is looked into.
    Raises UserError for a name, revision or file that does not exist, EnvironmentFault for the network.
    """
    hub = import_extra("huggingface_hub", "hub", f"{name} is not a local path; looking it up on the hub")
    found = _NAME.fullmatch(name)
    assert found is not None, f"{name} is not a hub name; is_hub_name() says so"
    repo, file = found["repo"], found["file"]
    common: dict[str, Any] = {
        "revision": revision or found["revision"],
        "endpoint": endpoint,
        "cache_dir": cache_dir,
        "local_files_only": offline(),
        "tqdm_class": None if progress else _silent_bars(),
    }
    try:
        if file is not None:
            under, _, base = file.rpartition("/")
            parts = part_names(base) or [base]  # of a split GGUF, whichever was named, the first opens
            paths = [Path(hub.hf_hub_download(repo, f"{under}/{part}".lstrip("/"), **common)) for part in parts]
            return paths[0]
        folder = Path(hub.snapshot_download(repo, allow_patterns=_WANTED, **common))
        if any(folder.glob("*.safetensors")):
            return folder
        folder = Path(hub.snapshot_download(repo, allow_patterns=[*_WANTED, *_OLD_WANTED], **common))
        if any(folder.glob("pytorch_model*.bin")):
            return folder
        files = [] if offline() else hub.HfApi(endpoint=endpoint).list_repo_files(repo, revision=common["revision"])
    except Exception as error:
        raise _as_our_error(error, repo, file, common["revision"]) from error
    ggufs = [file for file in files if file.endswith(".gguf")]
    raise UserError(
        f"{repo} on the hub holds no weights in safetensors or pytorch_model.bin.",
        hint=f"Name one of its GGUF files: {repo}/{ggufs[0]}" + (f" (of {len(ggufs)})" if len(ggufs) > 1 else "")
        if ggufs
        else "Models are read from safetensors, pytorch_model.bin and GGUF.",
    )


def _as_our_error(error: Exception, repo: str, file: str | None, revision: str | None) -> Exception:
    from huggingface_hub import errors

    what = f"{repo}/{file}" if file else repo
    nowhere = f"Model not found: {what} is not a local path, not in the hub's cache,"
    if isinstance(error, errors.GatedRepoError):
        return UserError(
            f"{repo} on the hub is gated.",
            hint=f"Accept its licence on its page, then log in:  hf auth login  ({repo}).",
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        if offline():
            return EnvironmentFault(
                f"{nowhere} and network access is switched off.",
                hint="Unset NANO_LLAMA_OFFLINE and HF_HUB_OFFLINE, or give the path of a local model.",
            )
        return EnvironmentFault(f"{nowhere} and the hub cannot be reached.", hint=_cause(error))
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{repo} on the hub has no revision {revision!r}.", hint="Give a branch, a tag or a commit.")
    if isinstance(error, errors.EntryNotFoundError):
        return UserError(
            f"{repo} on the hub has no file {file!r}.", hint=f"Give the name alone, {repo}, to see which it has."
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return UserError(
            f"Model not found: {repo} is not a local path, and not a public model on the hub.",
            hint="Check the spelling; for a private model log in first:  hf auth login",
        )
    return EnvironmentFault(f"Downloading {what} failed: {type(error).__name__}.", hint=_cause(error))


def _cause(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _silent_bars() -> type:
    tqdm = import_extra("tqdm.auto", "hub", "Downloading").tqdm

    class Silent(tqdm):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **{**options, "disable": True})

    return Silent
