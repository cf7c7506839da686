"""Adapters that change something: fresh ones have B = 0."""

import numpy as np

from nano_llama.core.lora import TARGETS, LoraConfig, adapter_shapes
from nano_llama.core.names import EMBED, LM_HEAD
from nano_llama.formats import open_model
from nano_llama.formats.peft import save_adapter_files

KINDS = {  # of different ranks, that need not be whole blocks of 16
    "lora": LoraConfig(r=3, alpha=5, target_modules=TARGETS),
    "rslora": LoraConfig(r=8, alpha=2, rslora=True, target_modules=("q_proj", "v_proj", "up_proj")),
    "dora": LoraConfig(r=17, alpha=9, dora=True, target_modules=TARGETS),
}


def save_kinds(folder, config, weights):
    """A random adapter of each kind -> {kind: its folder}."""
    for seed, (kind, lora) in enumerate(KINDS.items()):
        save_adapter_files(folder / kind, lora, random_adapter(lora, config, weights, seed))
    return {kind: folder / kind for kind in KINDS}


def save_adapter_of(model, folder):
    """A random adapter of the model at that path, which it names -> its folder."""
    with open_model(model) as weights:
        tensors = random_adapter(KINDS["dora"], weights.config, weights)
    save_adapter_files(folder, KINDS["dora"], tensors, base_model=str(model))
    return folder


def random_adapter(lora, config, weights, seed=0, dtype=np.float32):
    """{name: array} in core/lora.py's names: A and B drawn, magnitudes a few percent off the rows' lengths."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in adapter_shapes(lora, config).items():
        module, _, part = name.rpartition(".")
        noise = rng.standard_normal(shape)
        if part == "lora_magnitude_vector":
            matrix = f"{module}.weight" if f"{module}.weight" in weights else EMBED
            assert matrix != EMBED or f"{module}.weight" == LM_HEAD
            noise = np.linalg.norm(weights[matrix].astype(np.float64), axis=1) * (1 + 0.05 * noise)
        tensors[name] = (noise if part == "lora_magnitude_vector" else 0.2 * noise).astype(dtype)
    return tensors


def randomize(params, seed=0, only=""):
    """Draw A and B anew, and move magnitudes by a few percent: {name: parameter}, in place."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in params.items():
            if only not in name:
                continue
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.copy_(p.double() * (1 + 0.05 * noise) if p.dim() == 1 else 0.2 * noise)
