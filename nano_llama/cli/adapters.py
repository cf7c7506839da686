"""What commands share that are given an adapter: which model is beneath it, and how it is described.

Tests: tests/cli/test_merge.py, tests/cli/test_export.py.
"""

from pathlib import Path

from nano_llama.cli.common import Screen
from nano_llama.cli.models import locate_model
from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.lora import LoraConfig
from nano_llama.formats.peft import base_model_of


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


def method_text(lora: LoraConfig) -> str:
    """ "LoRA, rank 8, alpha 16, on q_proj, v_proj"."""
    name = " + ".join(name for name, on in (("rsLoRA", lora.rslora), ("DoRA", lora.dora)) if on) or "LoRA"
    return f"{name}, rank {lora.r}, alpha {lora.alpha:g}, on {', '.join(lora.target_modules)}"
