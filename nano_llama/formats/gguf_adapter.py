"""An adapter as a GGUF file, which llama.cpp applies to a model at run time (`llama-cli --lora`).

    general.type = "adapter"   adapter.type = "lora"   adapter.lora.alpha
    <name>.lora_a (r, in)   <name>.lora_b (out, r)           <name> as in gguf_names.py: blk.0.attn_q.weight

llama.cpp computes W x + alpha / r B A x. The rows of q and k, hence of their B, lie in GGUF's order.
Source of the format: llama.cpp's convert_lora_to_gguf. Tests: tests/formats/test_gguf_adapter.py.
"""

from functools import partial
from pathlib import Path

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.core.lora import adapted_modules, module_tensors
from nano_llama.formats.dtypes import cast
from nano_llama.formats.gguf_names import is_rotated, rows_to_gguf, to_gguf
from nano_llama.formats.gguf_reader import GGUFFile
from nano_llama.formats.gguf_writer import PlannedTensor, write_gguf
from nano_llama.formats.kinds import FLOATS
from nano_llama.formats.peft import Adapter


def save_gguf_adapter(path: str | Path, adapter: Adapter, config: LlamaConfig, dtype: str = "F32") -> None:
    """Write the adapter of a model with this config. dtype: "F32", "F16" or "BF16".

    What was written is read back and compared before the file takes its name. Raises UserError for what llama.cpp does
    not compute: DoRA, and an adapter on the head of a tied model.
    """
    wanted = dtype.upper()
    if wanted not in FLOATS:
        raise UserError(f"An adapter is not written as {dtype!r}.", hint=f"Choose {', '.join(FLOATS)}.")
    for impossible, what in (
        (adapter.lora.dora, "DoRA"),
        (config.tie_word_embeddings and "lm_head" in adapter.lora.target_modules, "an adapter on a tied head"),
    ):
        if impossible:
            raise UserError(
                f"{adapter.path}: llama.cpp does not compute {what}.",
                hint=f"Merge it into its model:  nano-llama merge --adapter {adapter.path} --out merged.gguf",
            )
    metadata = {
        "general.type": "adapter",
        "general.architecture": "llama",
        "general.name": Path(path).stem,
        "adapter.type": "lora",
        "adapter.lora.alpha": float(adapter.lora.scale * adapter.lora.r),  # which llama.cpp divides by r, always
    }
    arrays = {name: cast(name, array, wanted) for name, array in _gguf_tensors(adapter, config).items()}
    plan = [PlannedTensor(name, wanted, array.shape, partial(np.asarray, array)) for name, array in arrays.items()]
    write_gguf(path, metadata, plan, check=partial(_check_written, arrays=arrays))


def _gguf_tensors(adapter: Adapter, config: LlamaConfig) -> dict[str, np.ndarray]:
    tensors = {}
    for module in adapted_modules(adapter.lora, config):
        name = f"{module}.weight"
        A, B, _ = module_tensors(adapter.tensors, module)  # (r, in), (out, r)
        if is_rotated(name):
            B = B[rows_to_gguf(len(B), config.head_dim)]
        tensors[f"{to_gguf(name)}.lora_a"], tensors[f"{to_gguf(name)}.lora_b"] = A, B
    return tensors


def _check_written(path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = GGUFFile(path)
    try:
        for name, array in arrays.items():
            if file.blocks(name).tobytes() != array.tobytes():
                raise EnvironmentFault(
                    f"{name} was read back from {path} with other numbers than were written.",
                    hint="Are disk and memory in order? Try it again, on another disk.",
                )
    finally:
        file.close()
