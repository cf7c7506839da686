"""How much memory this process took at most, as its system tells.

Not here: a GPU's memory (its engine knows). Tests: tests/core/training/test_memory.py.
"""

import sys

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def peak_resident_bytes() -> int:
    """The largest resident set of this process so far, in bytes; 0 where the system does not tell."""
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, the others KiB
