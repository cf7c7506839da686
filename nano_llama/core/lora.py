"""LoRA's settings, the shapes of an adapter's tensors, and its initial values: one home for all volumes.

An adapter is a pair of thin matrices beside a frozen one: W + scale B A, A (r, in), B (out, r). DoRA adds a vector, the
length of each row. Names of tensors are `<module>.lora_A`, `<module>.lora_B` and `<module>.lora_magnitude_vector`, with
the module as in core/names.py: `model.layers.0.self_attn.q_proj`, `lm_head`.
Not here: the files (formats/peft.py), forward and backward (vol1_numpy/ops/lora_linear.py, vol2_torch/lora_linear.py),
and models whose matrices are merged with an adapter (formats/merged.py).
Sources: LoRA, Hu et al. 2021 (arXiv 2106.09685); rsLoRA, Kalajdzievski 2023 (arXiv 2312.03732); DoRA, Liu et al. 2024
(arXiv 2402.09353). Tests: tests/core/test_lora.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import ConfigError
from nano_llama.core.names import layer_name, layer_shapes

LAYER_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGETS = (*LAYER_TARGETS, "lm_head")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """What is adapted, and how. Raises ConfigError, naming field and value, for what is impossible.

    >>> LoraConfig(r=16, alpha=32).scale
    2.0
    """

    r: int = 8  # the rank of the correction
    alpha: float = 16.0  # its strength: PEFT's lora_alpha
    rslora: bool = False  # scale by alpha / sqrt(r), so that the strength does not fall with the rank
    dora: bool = False  # lengths of rows and their directions are learned apart
    target_modules: tuple[str, ...] = LAYER_TARGETS  # the matrices that get an adapter, in every layer
    dropout: float = 0.0  # while training, of what enters the adapter (not of what enters W)

    def __post_init__(self) -> None:
        if type(self.r) is not int or not 0 < self.r < 2**31:
            raise ConfigError(f"r = {self.r!r:.80} must be a positive integer, the rank of the adapter.")
        if not _is_number(self.alpha) or not self.alpha > 0:
            raise ConfigError(f"alpha = {self.alpha!r:.80} must be a positive number.")
        for name in ("rslora", "dora"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} = {getattr(self, name)!r:.80} must be True or False.")
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout = {self.dropout!r:.80} must be a number from 0 to below 1.")
        object.__setattr__(self, "target_modules", _targets(self.target_modules))
        if self.dropout and "lm_head" in self.target_modules:
            raise ConfigError(
                f"dropout = {self.dropout} with an adapter on lm_head: the loss multiplies by the head's matrix.",
                hint="Set dropout=0, or leave lm_head out of target_modules.",
            )

    def __str__(self) -> str:
        """In words: "LoRA, rank 8, alpha 16, on q_proj, v_proj"."""
        name = " + ".join(name for name, on in (("rsLoRA", self.rslora), ("DoRA", self.dora)) if on) or "LoRA"
        return f"{name}, rank {self.r}, alpha {self.alpha:g}, on {', '.join(self.target_modules)}"

    @property
    def scale(self) -> float:
        """What B A is multiplied by: alpha / r, or alpha / sqrt(r) with rsLoRA."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)


def _targets(given: object) -> tuple[str, ...]:
    """The target modules in the order of TARGETS: the order in which they are written cannot matter."""
    names = [given] if isinstance(given, str) else list(given) if isinstance(given, list | tuple | set) else []
    unknown = [name for name in names if name not in TARGETS]
    if unknown or not names:
        raise ConfigError(
            f"target_modules = {given!r:.200}: {f'{unknown[0]!r:.80} gets no adapter here' if unknown else 'none'}.",
            hint=f"Choose from {', '.join(TARGETS)}.",
        )
    return tuple(name for name in TARGETS if name in names)


def adapted_modules(lora: LoraConfig, config: LlamaConfig) -> dict[str, tuple[int, int]]:
    """module -> (out, in) of every matrix that gets an adapter, in forward order.

    A tied head is adapted without its twin: the embedding stays as it is.
    """
    modules: dict[str, tuple[int, int]] = {}
    for index in range(config.num_hidden_layers):
        for part, shape in layer_shapes(config).items():
            module = layer_name(index, part).removesuffix(".weight")
            if module.rpartition(".")[2] in lora.target_modules:
                modules[module] = (shape[0], shape[1])
    if "lm_head" in lora.target_modules:
        modules["lm_head"] = (config.vocab_size, config.hidden_size)
    return modules


def adapter_shapes(lora: LoraConfig, config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """name -> shape of every tensor of the adapter, in forward order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for module, (rows, columns) in adapted_modules(lora, config).items():
        shapes[f"{module}.lora_A"] = (lora.r, columns)
        shapes[f"{module}.lora_B"] = (rows, lora.r)
        if lora.dora:
            shapes[f"{module}.lora_magnitude_vector"] = (rows,)
    return shapes


def init_lora_matrices(lora: LoraConfig, config: LlamaConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """name -> new float32 array for every A and B; DoRA's lengths are the base's own (row_norms).

    A is uniform within 1/sqrt(in), B is zero: the adapted model begins as its base. Each tensor has a generator of its
    own, seeded by (seed, its index), as in init.py.
    """
    params = {}
    shapes = {name: shape for name, shape in adapter_shapes(lora, config).items() if name.endswith(("_A", "_B"))}
    for index, (name, shape) in enumerate(shapes.items()):
        params[name] = np.zeros(shape, np.float32)
        if name.endswith("_A"):
            bound = 1 / math.sqrt(shape[1])
            params[name][:] = np.random.default_rng((seed, index)).uniform(-bound, bound, shape)
    return params


def merged_weight(
    weight: np.ndarray, lora: LoraConfig, A: np.ndarray, B: np.ndarray, magnitude: np.ndarray | None = None
) -> np.ndarray:
    """The one matrix (out, in) that an adapted layer multiplies by, not yet rounded: float32, or wider where one is.

    W + scale B A; with DoRA, every row of that rescaled to the length that was learned for it, magnitude (out,). What
    merges is in formats/merged.py.
    """
    wide = np.result_type(*(np.promote_types(array.dtype, np.float32) for array in (weight, A, B)))
    merged = B.astype(wide) @ A.astype(wide)  # (out, in)
    merged *= wide.type(lora.scale)
    merged += weight
    if lora.dora:
        assert magnitude is not None, "DoRA learns the lengths of rows"
        merged *= dora_rescaling(merged, magnitude)[:, None]
    return merged


def dora_rescaling(merged: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
    """What brings each row of W + scale B A (out, in) to the length learned for it, magnitude (out,) -> (out,)

    A row of zeros, such as a padded vocabulary has, stays one.
    """
    lengths = np.linalg.norm(merged, axis=1)  # (out,)
    return np.divide(magnitude, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def module_tensors(tensors: Mapping[str, np.ndarray], module: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """A, B and with DoRA the magnitudes, else None, of one module of an adapter."""
    return tensors[f"{module}.lora_A"], tensors[f"{module}.lora_B"], tensors.get(f"{module}.lora_magnitude_vector")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
