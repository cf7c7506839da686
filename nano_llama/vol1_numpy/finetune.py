"""The LLaMA with an adapter: the weights stay as they are, and a small correction beside each matrix is trained.

    model = apply_lora(Llama.from_pretrained(path), LoraConfig(r=16, alpha=32))
    model.loss_and_grads(tokens, targets)     gradients of the adapter alone: model.trainable
    save_adapter(model, folder)               PEFT reads it, and load_adapter reads PEFT's
    merge_lora(model)                         an ordinary model with the same outputs

Neither layer.py nor the backward pass of model.py knows of it. They call their ops through a table, and here `linear`
is one that multiplies by a matrix and its adapter. An ordinary op's backward returns the gradient of its weight; these
return a dictionary, {tensor of the adapter: gradient}, which is empty where nothing is trained. Of the three products
that a matrix costs in a step, y = x W^T, dx = dy W and dW = dy^T x, the third falls away.
Tests: tests/vol1/test_vol1_finetune.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.core.lora import (
    LoraConfig,
    adapted_modules,
    adapter_shapes,
    init_lora_matrices,
    merged_weight,
    module_tensors,
)
from nano_llama.core.names import LM_HEAD, layer_name
from nano_llama.formats.peft import read_adapter, save_adapter_files
from nano_llama.vol1_numpy.layer import Params
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.ops.adapted_linear import AdaptedMatrix, adapted_linear_backward, adapted_linear_forward
from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.registry import OpPair, Ops


class AdaptedLlama(Llama):
    """`base`, whose parameters are frozen, with an adapter: {name: array} in core/lora.py's names."""

    def __init__(self, base: Llama, lora: LoraConfig, adapter: dict[str, Array]):
        """adapter: in the base's dtype; an optimizer changes its arrays in place. Weights are shared with the base.

        `lora.dropout` plays no part: Volume 1's LLaMA has none. Raises UserError where the base already has an adapter,
        or where a tensor is missing, too many, or has another shape or dtype.
        """
        if isinstance(base, AdaptedLlama):
            raise UserError("The model already has an adapter.", hint="Call merge_lora first, or begin with its base.")
        super().__init__(base.config, base.params, ops=frozen(base.ops), threads=base.threads)
        self.base, self.lora, self.adapter = base, lora, adapter
        expected = adapter_shapes(lora, base.config)
        for name in expected.keys() ^ adapter.keys():
            raise UserError(f"adapter: {name} is {'missing' if name in expected else 'not one of its tensors'}.")
        for name, shape in expected.items():
            found = adapter[name]
            if (found.dtype, found.shape) != (self.dtype, shape):
                raise UserError(f"adapter: {name} is {found.dtype} {found.shape}, expected {self.dtype} {shape}.")

    @property
    def trainable(self) -> dict[str, Array]:
        return self.adapter

    def layer_params(self, index: int) -> Params:
        params = super().layer_params(index)
        return {part: self._adapted(layer_name(index, part), param) for part, param in params.items()}

    @property
    def head(self) -> Any:  # (V,D); in a tied model the embedding, which itself stays as it is
        return self._adapted(LM_HEAD, super().head)

    def _adapted(self, name: str, param: Array) -> Any:
        """`param` with the adapter beside it, where it has one."""
        module = name.removesuffix(".weight")
        if f"{module}.lora_A" not in self.adapter:
            return param
        A, B, magnitude = module_tensors(self.adapter, module)
        return AdaptedMatrix(weight=param, lora_A=A, lora_B=B, lora_magnitude_vector=magnitude, scale=self.lora.scale)

    def collect_grads(self, grads: Mapping[str, Any]) -> dict[str, Array]:
        """{"lm_head.weight": {"lora_A": dA, ...}, ...} -> {"lm_head.lora_A": dA, ...}"""
        return {
            f"{name.removesuffix('weight')}{part}": grad
            for name, found in grads.items()
            for part, grad in found.items()
        }

    def save(self, path: str | Path, *args: Any, **options: Any) -> NoReturn:
        raise UserError(
            f"{path}: a model with an adapter is not one file.",
            hint="save_adapter(model, path) writes the adapter, merge_lora(model).save(path) both in one.",
        )


def frozen(ops: Ops) -> Ops:
    """The same ops, for a model whose parameters have no gradients; `linear` knows adapters."""

    def rmsnorm_backward(dy: Array, cache: Cache) -> tuple[Array, dict[str, Array]]:
        return ops.rmsnorm.backward(dy, cache)[0], {}

    def embedding_backward(dy: Array, cache: Cache) -> dict[str, Array]:
        return {}

    return replace(
        ops,
        linear=OpPair(adapted_linear_forward, adapted_linear_backward),
        rmsnorm=OpPair(ops.rmsnorm.forward, rmsnorm_backward),
        embedding=OpPair(ops.embedding.forward, embedding_backward),
    )


def apply_lora(model: Llama, lora: LoraConfig, *, seed: int = 0) -> AdaptedLlama:
    """The model, on the same weights, with a fresh adapter: its outputs are the same, as B is zero.

    Raises UserError where it already has an adapter.
    """
    fresh: dict[str, Array] = init_lora_matrices(lora, model.config, seed)
    if lora.dora:
        for module in adapted_modules(lora, model.config):
            fresh[f"{module}.lora_magnitude_vector"] = np.linalg.norm(_matrix(model, module), axis=1)  # (out,)
    return with_adapter(model, lora, fresh)


def load_adapter(model: Llama, folder: str | Path) -> AdaptedLlama:
    """The model, on the same weights, with a saved adapter, ours or PEFT's, ready to train on.

    Raises what read_adapter raises, FormatError for the adapter of another model, and UserError where it already has
    an adapter.
    """
    adapter = read_adapter(folder, model.config)
    adapter.check_base_head(_matrix(model, "lm_head"))
    return with_adapter(model, adapter.lora, adapter.tensors)


def with_adapter(model: Llama, lora: LoraConfig, tensors: Mapping[str, Array]) -> AdaptedLlama:
    """The model, on the same weights, with a copy of `tensors` as its adapter."""
    names = adapter_shapes(lora, model.config)
    copies = {name: np.array(tensors[name], model.dtype, order="C") for name in names if name in tensors}
    return AdaptedLlama(model, lora, copies)


def save_adapter(model: AdaptedLlama, folder: str | Path, *, base_model: str | None = None) -> None:
    """Write the adapter where PEFT reads it. base_model: the path or hub name of the model beneath, for PEFT."""
    save_adapter_files(folder, model.lora, model.adapter, base_model=base_model)


def merge_lora(model: AdaptedLlama) -> Llama:
    """An ordinary model with the same outputs; what has no adapter it shares with this one.

    A tied model whose head is adapted gets a head of its own, since head and embedding now differ: its config says
    tie_word_embeddings = false.
    """
    config, params = model.config, dict(model.params)
    for module in adapted_modules(model.lora, config):
        tensors = module_tensors(model.adapter, module)
        params[f"{module}.weight"] = merged_weight(_matrix(model.base, module), model.lora, *tensors)
    if LM_HEAD in params:
        config = config.replace(tie_word_embeddings=False)
    return Llama(config, params, ops=model.base.ops, threads=model.threads)


def _matrix(model: Llama, module: str) -> Array:
    """The matrix that an adapter of this module stands beside."""
    return model.head if module == "lm_head" else model.params[f"{module}.weight"]
