"""A model whose frozen matrices are blocks of 4 or 8 bits, made tensor by tensor, and dequantized again.

The layers are in vol2_torch/quantized_linear.py. Tests: tests/vol2/finetune/test_quantized_base.py.
"""

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from nano_llama.core.config import LlamaConfig
from nano_llama.core.init import check_params
from nano_llama.core.names import parameter_shapes
from nano_llama.formats.gguf_quants import quantize
from nano_llama.formats.kinds import FLOATS
from nano_llama.formats.mapping import TensorMapping, as_mapping
from nano_llama.formats.quantization_scheme import base_kinds
from nano_llama.vol2_torch.lora_linear import LoraLinear
from nano_llama.vol2_torch.model import Llama, to_tensor
from nano_llama.vol2_torch.quantized_linear import (
    QuantizedEmbedding,
    QuantizedLinear,
    QuantizedMatrix,
    Workspace,
    dense,
)

HOLDERS = (QuantizedEmbedding, QuantizedLinear, LoraLinear)


def quantized_base(
    config: LlamaConfig, weights: Mapping[str, np.ndarray], to: str = "int4", *,
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32,
) -> Llama:  # fmt: skip
    """The model of these weights, frozen, its matrices in the blocks that base_kinds names: ready for apply_lora.

    Memory holds the blocks and, while it is made, one matrix. Norms, and matrices that a scheme leaves as floats, have
    `dtype`, which is also what blocks dequantize to. A tied head shares the embedding's blocks. Raises UserError where
    the scheme does not fit, FormatError where the weights are not this model's.
    """
    source = as_mapping(weights)
    check_params(config, source)
    kinds = base_kinds(to, config, source)
    with torch.device("meta"):
        model = Llama(config)
    workspace = Workspace()
    for name in parameter_shapes(config):
        module = name.removesuffix(".weight")
        if name in kinds and kinds[name] not in FLOATS:
            matrix = QuantizedMatrix(kinds[name], _blocks(source, name, kinds[name]), dtype, workspace).to(device)
            embedding = isinstance(model.get_submodule(module), nn.Embedding)
            model.set_submodule(module, QuantizedEmbedding(matrix) if embedding else QuantizedLinear(matrix))
        else:
            parameter = nn.Parameter(to_tensor(source[name]).to(device, dtype, copy=True))
            model.get_submodule(module).weight = parameter
        source.release_pages()
    return model.requires_grad_(False)


@torch.no_grad()
def dequantize(model: Llama) -> Llama:
    """Make an ordinary parameter, frozen, of every quantized matrix; returns the model. Warns where there are any."""
    holders = {name: module for name, module in model.named_modules() if isinstance(module, HOLDERS)}
    quantized = {name: module for name, module in holders.items() if not isinstance(module.weight, nn.Parameter)}
    if not quantized:
        return model
    warnings.warn(
        f"{len(quantized)} quantized matrices become {model.dtype} weights. To quantize again: nano-llama quantize",
        stacklevel=3,
    )
    for name, module in quantized.items():
        weight = nn.Parameter(dense(module.weight), requires_grad=False)
        if isinstance(module, LoraLinear):
            module.weight = weight
            continue
        rows, columns = weight.shape
        embedding = isinstance(module, QuantizedEmbedding)
        with torch.device("meta"):
            layer = nn.Embedding(rows, columns) if embedding else nn.Linear(columns, rows, bias=False)
        layer.weight = weight
        model.set_submodule(name, layer)
    return model


def _blocks(source: TensorMapping, name: str, kind: str) -> torch.Tensor:
    """uint8 (rows, bytes of a row): the stored ones, in the model's order of rows, or new ones."""
    if source.dtype_name(name) != kind:
        return torch.from_numpy(quantize(kind, np.asarray(source[name])))
    order = source.row_order(name)
    stored = source.raw(name).blocks
    return torch.from_numpy(np.array(stored) if order is None else stored[order])
