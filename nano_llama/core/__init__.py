"""The core: what everything else stands on. It imports neither torch nor numba.

Tests: tests/core/.
"""
