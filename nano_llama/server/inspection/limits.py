"""How much one question to /inspect may cost.

Tests: tests/server/page/test_inspect_model.py.
"""

MAX_TOKENS = 2048  # of /inspect/tokens
MAX_REPLAYED = 256  # tokens that Volume 1 computes again
MAX_GRID = 64  # positions of the lens, and of the attention of all layers at once
TOP = 256  # tokens of a distribution that are listed
