"""Adapters in PEFT's format: a folder with adapter_config.json and adapter_model.safetensors.

    base_model.model.<module>.lora_A.weight            (r, in)      <module> as in core/names.py
    base_model.model.<module>.lora_B.weight            (out, r)
    base_model.model.<module>.lora_magnitude_vector    (out,)       DoRA; without ".weight"
    base_model.model.lm_head.base_layer.weight         (V, D)       the base's head, repeated by PEFT where adapted

Of a model that reads images the LLaMA may be adapted: `model.text_model.` stands where a LLaMA has `model.`, and there
target_modules may be a regular expression, PEFT's way to leave the encoder out: what it chose, the file holds.

LoRA, rsLoRA and DoRA are read, on any of core/lora.py's modules. What else an adapter_config.json may ask for is
refused by name, and so is every tensor that is missing or too many: PEFT itself leaves missing ones random.
Source of the format: PEFT 0.21's documentation, "checkpoint format". Tests: tests/formats/test_peft.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.files import read_json, write_json
from nano_llama.core.lora import TARGETS, LoraConfig, adapter_shapes
from nano_llama.core.vision.names import TEXT, VISION, text_name
from nano_llama.formats.dtypes import FLOATS
from nano_llama.formats.mapping import Selection, as_mapping
from nano_llama.formats.safetensors import SafetensorsFile, save_safetensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_BASE_HEAD = f"{_PREFIX}lm_head.base_layer.weight"
_MAX_CONFIG_BYTES = 2**20

# What is read, by PEFT's names, and PEFT's value where the file does not say one.
_READ = {
    "r": 8, "lora_alpha": 8, "use_rslora": False, "use_dora": False, "target_modules": None, "lora_dropout": 0.0,
}  # fmt: skip
# Where the adapter came from, how it was initialized, and settings of methods that are off: nothing to compute.
_BOOKKEEPING = {
    "auto_mapping", "base_model_name_or_path", "revision", "peft_version", "inference_mode", "megatron_core",
    "qalora_group_size", "ensure_weight_tying", "runtime_config",
}  # fmt: skip
# The values that change nothing. A key that is neither here nor above must be null, false or empty.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": (None, "CAUSAL_LM"),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),  # others change the base at loading
}


@dataclass(frozen=True)
class Adapter:
    """An adapter as it is stored, under core/lora.py's names."""

    path: Path
    lora: LoraConfig
    tensors: dict[str, np.ndarray]  # read-only views of the mapped file
    base_head: np.ndarray | None  # the head of the model it was trained on, where the file repeats it

    def check_base_head(self, head: np.ndarray) -> None:
        """Raise FormatError where the file repeats another head than this one, (V, D), of the model it is put on.

        They are the same if one is the other rounded: the model may have been trained in another precision.
        """
        pairs = [] if self.base_head is None else [(self.base_head, head), (head, self.base_head)]
        if pairs and not any(np.array_equal(one.astype(other.dtype), other) for one, other in pairs):
            raise FormatError(
                f"{self.path}: its lm_head.base_layer.weight is not this model's head.",
                hint="Is it an adapter of another model, or of one whose head was trained as well?",
            )


def read_adapter(folder: str | Path, config: LlamaConfig) -> Adapter:
    """The adapter in `folder`, checked against the model it is for.

    Raises UserError where it cannot be opened; ConfigError or FormatError, naming key or tensor, where it asks for what
    is not computed here, or has other tensors than its config and this model imply.
    """
    folder = Path(folder)
    lora = read_adapter_config(folder)
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise UserError(
            f"{folder} has no {WEIGHTS}{', only an adapter_model.bin, which is not read' if pickled else ''}.",
            hint="Save it again with PEFT 0.6 or newer, which writes safetensors.",
        )
    file = SafetensorsFile(folder / WEIGHTS)
    of_images = any(name.startswith(_PREFIX + TEXT) for name in file)
    names = {peft_name(text_name(name) if of_images else name): name for name in adapter_shapes(lora, config)}
    shapes = {theirs: adapter_shapes(lora, config)[ours] for theirs, ours in names.items()}
    repeats_head = _BASE_HEAD in file and "lm_head" in lora.target_modules
    if repeats_head:
        shapes[_BASE_HEAD] = (config.vocab_size, config.hidden_size)
    missing, unused = shapes.keys() - file.keys(), file.keys() - shapes.keys()
    named = base_model_of(folder)
    trained_on = f" It was trained on {named}." if named else ""
    for problem, wrong in (("lacks", missing), ("has, and this adapter does not use,", unused)):
        if wrong:
            shown = ", ".join(sorted(wrong)[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
            hint = f"Do {CONFIG}, the adapter and the model belong together?{trained_on}"
            if any(name.startswith(_PREFIX + VISION) for name in wrong):
                hint = "An image encoder is not adapted here. Leave it out: target_modules=r'.*text_model.*_proj'."
            raise FormatError(f"{file.path} {problem} {shown:.800}.", hint=hint)
    for name, shape in shapes.items():
        if file.shape(name) != shape:
            raise FormatError(
                f"{file.path}: {name} has shape {file.shape(name)}; {CONFIG} and the model imply {shape}.",
                hint=f"Is it an adapter of another model?{trained_on}",
            )
        if file.dtype_name(name) not in FLOATS:
            raise FormatError(f"{file.path}: {name} is stored as {file.dtype_name(name)}, not as floats.")
    return Adapter(
        folder, lora, {ours: file[theirs] for theirs, ours in names.items()}, file[_BASE_HEAD] if repeats_head else None
    )


def read_adapter_config(folder: str | Path) -> LoraConfig:
    """What adapter_config.json says. Raises ConfigError or FormatError, naming the key, for what is not read."""
    path = Path(folder) / CONFIG
    raw = _read_json(folder)
    if "peft_type" not in raw:
        raise FormatError(f"{path} has no peft_type.", hint='Only adapters with "peft_type": "LORA" are read.')
    for key, value in raw.items():
        if key in _READ or key in _BOOKKEEPING:
            continue
        allowed = _NEUTRAL.get(key, (None, False, [], {}))
        if not any(type(value) is type(one) and value == one for one in allowed):
            shown = ", ".join(map(repr, allowed)) if key in _NEUTRAL else "adapters without it"
            raise FormatError(f"{path}: {key:.80} = {value!r:.200} is not supported.", hint=f"Read are {shown}.")
    given = _READ | {key: raw[key] for key in _READ if key in raw}
    targets = given["target_modules"]
    if isinstance(targets, str) and targets not in TARGETS and (Path(folder) / WEIGHTS).is_file():
        targets = _adapted_in(Path(folder) / WEIGHTS) or targets
    return LoraConfig(
        r=given["r"], alpha=given["lora_alpha"], rslora=given["use_rslora"], dora=given["use_dora"],
        target_modules=targets, dropout=given["lora_dropout"],
    )  # fmt: skip


def _adapted_in(path: Path) -> list[str]:
    """The target modules in the LLaMA of a model that reads images, by what the file holds; [] for another model."""
    ending = ".lora_A.weight"
    with SafetensorsFile(path) as file:
        found = [name for name in file if name.startswith(_PREFIX + TEXT) and name.endswith(ending)]
    return sorted({name.removesuffix(ending).rpartition(".")[2] for name in found})


def is_adapter(folder: str | Path) -> bool:
    """Whether it is a folder with an adapter_config.json."""
    return (Path(folder) / CONFIG).is_file()


def base_model_of(folder: str | Path) -> str | None:
    """The path or hub name of the model that an adapter says it was trained on; None where it says none."""
    name = _read_json(folder).get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def _read_json(folder: str | Path) -> dict[str, Any]:
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UserError(
            f"{folder} is not an adapter: it has no {CONFIG}." if Path(folder).is_dir() else f"No adapter at {folder}.",
            hint=f"Give the folder that holds {CONFIG} and {WEIGHTS}.",
        )
    raw = read_json(path, what="adapter config", max_bytes=_MAX_CONFIG_BYTES)
    if not isinstance(raw, dict):
        raise FormatError(f"{path} holds a {type(raw).__name__}, not an object.")
    return raw


def save_adapter_files(
    folder: str | Path, lora: LoraConfig, tensors: Mapping[str, np.ndarray], *, base_model: str | None = None
) -> None:
    """Write both files, each tensor in its own type. base_model: where the model is, for PEFT's AutoPeftModel.

    An adapter that is there is replaced; a kill between the two files leaves a folder without adapter_config.json,
    never one with the config of another adapter. Raises EnvironmentFault.
    """
    folder = Path(folder)
    (folder / CONFIG).unlink(missing_ok=True)
    source, ours = as_mapping(tensors), {peft_name(name): name for name in tensors}
    save_safetensors(folder / WEIGHTS, Selection(folder / WEIGHTS, dict.fromkeys(ours, source), ours))
    write_json(folder / CONFIG, _peft_config(lora, base_model))


def _peft_config(lora: LoraConfig, base_model: str | None) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
        "target_modules": list(lora.target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "init_lora_weights": True,
    }


def peft_name(name: str) -> str:
    """PEFT's name of a tensor that core/lora.py names."""
    return f"{_PREFIX}{name}" if name.endswith("lora_magnitude_vector") else f"{_PREFIX}{name}.weight"
