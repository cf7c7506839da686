"""What commands share that are given an adapter: which model is beneath it, and how it is described.

Tests: tests/cli/test_merge.py, tests/cli/test_export.py, tests/cli/test_info.py.
"""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nano_llama.cli.common import Screen
from nano_llama.cli.models import locate_model
from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.units import count_text, size_text
from nano_llama.formats.peft import WEIGHTS, base_model_of, read_adapter_config
from nano_llama.formats.safetensors import SafetensorsFile


def find_base(model: str | None, adapter: Path, screen: Screen, option: str = "--model") -> Path:
    """The model beneath an adapter: the one that was given as `option`, else the one that the adapter names.

    Raises what locate_model raises, and UserError where neither says one.
    """
    if model is not None:
        return locate_model(model, screen)
    named = base_model_of(adapter)
    if named is None:
        raise UserError(f"{adapter} does not say which model it was trained on.", hint=f"Name it with {option}.")
    try:
        return locate_model(named, screen)
    except NanoLlamaError as error:
        error.message = f"{adapter} was trained on {named}. {error.message}"
        error.hint = f"Name the model with {option}."
        raise


def find_model(model: str | None, adapter: Path | None, screen: Screen, default: str | None = None) -> Path:
    """The model of a command that takes an adapter: `model`, else the one beneath the adapter, else the default.

    Raises what find_base raises, and UserError where none is given.
    """
    if adapter is not None:
        return find_base(model, adapter, screen)
    if model is None and default is None:
        raise UserError(
            "--model is missing.", hint="For example  smollm2-135m,  a folder, a .gguf or a hub name (org/name)."
        )
    return locate_model(model or default or "", screen)


def adapter_facts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an adapter's files say of it, from their headers: for --json, and in words."""
    lora = read_adapter_config(path)
    with SafetensorsFile(path / WEIGHTS) as file:
        parameters = sum(math.prod(file.shape(name)) for name in file if "lora_" in name)
        matrices = sum(name.endswith("lora_A.weight") for name in file)
        size = sum(file.nbytes(name) for name in file)
        stored = ", ".join(sorted({file.dtype_name(name) for name in file}))
    data = {
        "path": str(path),
        "base_model": base_model_of(path),
        **asdict(lora),
        "matrices": matrices,
        "parameters": parameters,
        "bytes": size,
    }
    words = {
        "path": path,
        "of the model": data["base_model"] or "not said",
        "method": str(lora),
        "scale": f"{lora.scale:g}",
        "dropout": lora.dropout or None,
        "matrices": matrices,
        "parameters": f"{parameters:,} ({count_text(parameters)}), {stored}",
        "size": size_text(size),
        "use it": f"nano-llama generate --adapter {path} --prompt ...",
    }
    return data, words
