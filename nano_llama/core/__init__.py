"""The core: what all three volumes share. It imports neither torch nor numba.

Not here: anything that computes a model's output. Tests: tests/core/.
"""
