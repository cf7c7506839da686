"""Flash attention's kernels compiled for an H100 on a machine without one, and what they take there.

    python compile_flash_attention.py        one JSON line for each of KERNELS; TRITON_INTERPRET must not be set

Triton brings the compiler, the assembler included; only running a kernel needs a GPU.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from nano_llama.vol2_torch.kernels import flash_backward, flash_forward
from nano_llama.vol2_torch.kernels.flash_configs import config_for

FUNCTIONS = {
    "forward": flash_forward.forward_kernel,
    "dq": flash_backward.dq_kernel,
    "dkdv": flash_backward.dkdv_kernel,
}
# kernel, head dim, with documents and lengths that are not multiples of a tile
KERNELS = [(kernel, K, K == 64) for kernel in FUNCTIONS for K in (64, 128)]


def compiled(kernel: str, K: int, packed: bool, dtype: torch.dtype = torch.bfloat16) -> Any:
    """As flash_attention launches it for causal attention with as many key heads as query heads."""
    function, config = FUNCTIONS[kernel], config_for(kernel, dtype, K)
    constants = {
        "GROUP": 1, "K": K, "CAUSAL": True, "PACKED": packed, "WIDE": tl.float32, "EVEN": not packed,
        "BLOCK_T": config.queries, "BLOCK_S": config.keys, "BLOCK_K": triton.next_power_of_2(K),
    }  # fmt: skip
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    signature, attributes = {}, {}
    for index, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif "scale" in name:
            signature[name] = "fp32"
        elif name in ("H", "T", "S") or name.endswith(("_batch", "_head", "_row")):
            signature[name] = "i32"
        elif name in ("lse", "delta"):
            signature[name] = "*fp32"
        else:
            signature[name] = "*i64" if packed and "documents" in name else "*bf16"
        if signature[name][0] == "*" or (signature[name] == "i32" and (name != "T" or not packed)):
            attributes[index,] = [["tt.divisibility", 16]]
    return triton.compile(
        ASTSource(function, signature, constants, attributes),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": config.num_warps, "num_stages": config.num_stages},
    )


def resources(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, and the bytes of its stack: what did not fit into registers."""
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [cuobjdump, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert found, said
    return {"registers": int(found[1]), "stack": int(found[2])}


if __name__ == "__main__":
    for kernel, K, packed in KERNELS:
        done = compiled(kernel, K, packed)
        found = {
            "kernel": kernel, "head_dim": K, "packed": packed, "triton": triton.__version__,
            "shared": done.metadata.shared, "wgmma": done.asm["ptx"].count("wgmma.mma_async"),
        }  # fmt: skip
        print(json.dumps(found | resources(done.asm["cubin"])), flush=True)
