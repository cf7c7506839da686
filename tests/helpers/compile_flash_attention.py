"""Flash attention's kernels compiled for an H100 on a machine without one, and what they take there.

    python compile_flash_attention.py        a JSON line for each kernel in each of FORMS; without TRITON_INTERPRET

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
# head dim, causal, with documents and a ragged length
FORMS = [(64, True, True), (64, False, False), (128, True, False)]


def compiled(kernel: str, K: int, causal: bool, packed: bool) -> Any:
    """As flash_attention launches it in bfloat16, with as many key heads as query heads."""
    function, config = FUNCTIONS[kernel], config_for(kernel, torch.bfloat16, K)
    constants = {
        "GROUP": 1, "K": K, "CAUSAL": causal, "PACKED": packed, "WIDE": tl.float32, "EVEN": not packed,
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
    """Registers of a thread; the bytes of its stack, which did not fit into registers; the products of matrix tiles,
    and how often the program begins a group of them, for which it then waits."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = read_cubin("--dump-resource-usage", file.name)
        instructions = read_cubin("-sass", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    return {
        "registers": int(found[1]), "stack": int(found[2]),
        "products": instructions.count("HGMMA."), "groups": instructions.count("WARPGROUP.ARRIVE"),
    }  # fmt: skip


def read_cubin(what: str, path: str) -> str:
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run([cuobjdump, what, path], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    for kernel in FUNCTIONS:
        for K, causal, packed in FORMS:
            done = compiled(kernel, K, causal, packed)
            found = {
                "kernel": kernel,
                "head_dim": K,
                "causal": causal,
                "packed": packed,
                "shared": done.metadata.shared,
            }
            print(json.dumps(found | resources(done.asm["cubin"])), flush=True)
