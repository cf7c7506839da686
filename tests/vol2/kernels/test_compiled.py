"""The kernels of rows compile to a card's machine code, without one: what the interpreter takes, a compiler may not.

The sizes are a 1B model's, the formats those of training in bf16.
"""

import pytest

from helpers.kernels import run_compiling

pytestmark = pytest.mark.triton

SCRIPT = """
import triton.language as tl
from helpers.kernels import compile_for_card
from nano_llama.vol2_torch.kernels import cross_entropy, rmsnorm, rope, swiglu, tiles

FLOAT = {"FLOAT": tl.float32}
D, F, V, half = 2048, 8192, 50257, 32
rows, width, warps = tiles.row_tile(16384, D)
norm = {"WEIGHT": "*fp32", "STREAM": "*fp32", "eps": "fp32", "ROWS": rows, "WIDTH": width, **FLOAT}
forward = {**norm, "X": "*bf16", "RESIDUAL": "*fp32", "Y": "*bf16", "ADD": True}
backward = {**norm, "DY": "*bf16", "DSTREAM": "*fp32", "DX": "*fp32", "NARROW": "*bf16", "SUMS": "*fp32",
            "ADD": True, "TWO": True}
gated = {name: "*bf16" for name in ("GATE", "UP", "Y", "DY", "DGATE", "DUP")} | {"WIDTH": 2048, **FLOAT}
rotation = {name: "*bf16" for name in ("Q", "K", "Q_OUT", "K_OUT")} | {
    "COS": "*fp32", "SIN": "*fp32", "sign": "fp32", "H": 32, "G": 8, "ROWS": 32, "WIDTH": half, **FLOAT}
loss_rows, loss_width, loss_warps = tiles.row_tile(667, tiles.TILE_NUMBERS)
loss = {"LOGITS": "*bf16", "TARGETS": "*i64", "LOSSES": "*fp32", "z_loss": "fp32",
        "IGNORED": -100, "GRADIENT": True, "ROWS": loss_rows, "WIDTH": loss_width, **FLOAT}
for kernel, arguments, num_warps in (
    (rmsnorm.rmsnorm_kernel, forward, warps),
    (rmsnorm.rmsnorm_backward_kernel, backward, warps),
    (swiglu.swiglu_kernel, gated, 4),
    (swiglu.swiglu_backward_kernel, gated, 4),
    (rope.rope_kernel, rotation, 4),
    (cross_entropy.cross_entropy_kernel, loss, loss_warps),
):
    taken = {name: arguments.get(name, "i32") for name in kernel.arg_names}  # sizes and strides
    print(kernel.fn.__name__, len(compile_for_card(kernel, taken, num_warps)))
"""


def test_they_compile_for_a_card():
    sizes = dict(line.split() for line in run_compiling(SCRIPT).splitlines())
    assert len(sizes) == 6 and all(int(size) > 1000 for size in sizes.values())
