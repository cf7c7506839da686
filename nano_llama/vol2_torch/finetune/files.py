"""A model's adapter to and from a folder in PEFT's format (formats/peft.py).

Tests: tests/vol2/finetune/test_files.py, tests/parity/test_peft.py.
"""

from pathlib import Path

import torch

from nano_llama.formats.peft import read_adapter, save_adapter_files
from nano_llama.vol2_torch.finetune.adapters import adapter_config, adapter_params, apply_lora
from nano_llama.vol2_torch.model import Llama, to_tensor
from nano_llama.vol2_torch.training_state import to_array


def save_adapter(model: Llama, folder: str | Path, *, base_model: str | None = None) -> None:
    """Write the model's adapter where PEFT reads it. base_model: the path or hub name of the model beneath, for PEFT.

    Raises UserError where the model has no adapter, EnvironmentFault where the files cannot be written.
    """
    # NumPy has no bfloat16, which model.to(torch.bfloat16) makes of an adapter as well
    wide = {name: p.to(torch.promote_types(p.dtype, torch.float32)) for name, p in adapter_params(model).items()}
    tensors = {name: to_array(tensor) for name, tensor in wide.items()}
    save_adapter_files(folder, adapter_config(model), tensors, base_model=base_model)


@torch.no_grad()
def load_adapter(model: Llama, folder: str | Path) -> Llama:
    """Put a saved adapter, ours or PEFT's, onto the model it was trained on; returns the model, ready to train on.

    Every tensor of the file is used, and every one of the adapter comes from it. Raises what read_adapter raises, and
    FormatError where the file repeats the head of another model.
    """
    adapter = read_adapter(folder, model.config)
    adapter.check_base_head(to_array(model.head_weight))
    apply_lora(model, adapter.lora)
    for name, parameter in adapter_params(model).items():
        parameter.copy_(to_tensor(adapter.tensors[name]))
    return model
