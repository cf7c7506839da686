"""Fine-tuning with adapters, on Volume 2's model: apply, train, save and load in PEFT's format, merge.

    model = Llama.from_pretrained(path)
    apply_lora(model, LoraConfig(r=16, alpha=32))    # only the adapter is trainable: adapter_params(model)
    save_adapter(model, folder)                      # PEFT reads it, and load_adapter reads PEFT's
    merge_lora(model)                                # an ordinary model again

QLoRA: the base is quantized_base(config, weights, "int4"), everything else is the same.
The layer itself is vol2_torch/lora_linear.py. Tests: tests/vol2/finetune/, tests/parity/test_peft.py.
"""

from nano_llama.core.lora import LoraConfig
from nano_llama.vol2_torch.finetune.adapters import (
    adapter_params,
    apply_lora,
    merge_lora,
    remove_lora,
    round_frozen,
)
from nano_llama.vol2_torch.finetune.files import load_adapter, save_adapter
from nano_llama.vol2_torch.finetune.quantized_base import dequantize, quantized_base

__all__ = [
    "LoraConfig",
    "adapter_params",
    "apply_lora",
    "dequantize",
    "load_adapter",
    "merge_lora",
    "quantized_base",
    "remove_lora",
    "round_frozen",
    "save_adapter",
]
