"""Training with many processes: each axis in a file of its own, with a naive form beside it that a reader can follow.

Tests: tests/parallel/, which start two and four processes:  pytest -m parallel
"""

from nano_llama.vol2_torch.parallel.config import AXES, ParallelConfig

__all__ = ["AXES", "ParallelConfig"]
