"""Volume 2's GPU kernels, written in Triton, each beside the plain form that it must equal.

They run on NVIDIA GPUs, and on CPU tensors in Triton's interpreter (launch.py). Importing this room needs no triton; a
call does: pip install "nano-llama-engine[triton]". Tests: tests/vol2/kernels/.
"""

from nano_llama.vol2_torch.kernels.flash_attention import flash_attention

__all__ = ["flash_attention"]
