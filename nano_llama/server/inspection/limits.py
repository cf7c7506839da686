"""How much one question to /inspect may cost.

Tests: tests/server/page/test_inspect_model.py.
"""

MAX_TOKENS = 2048  # of /inspect/tokens
TOP = 256  # tokens of a distribution that are listed
