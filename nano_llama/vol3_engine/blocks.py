"""Blocks: keys and values are kept in pieces of BLOCK_SIZE tokens.

Not here: the memory itself (runner/). Tests: tests/vol3/test_runner_torch.py.
"""

BLOCK_SIZE = 16  # tokens
