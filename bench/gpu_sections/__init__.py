"""The sections of bench/gpu.py, and what runs them.

table.py: which sections there are, their limits, and the bars. driver.py: a process for each, within a call's seconds.
worker.py: what runs in such a process. results.py: the file of results, and whether a card passed. measure.py: timing.
The sections themselves: correctness.py, kernels.py, training.py, generation.py; report.py: what they fill;
runs.py, fused_pairs.py and peers.py: what several of them use.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # nano_llama from the checkout: nothing is installed on a card's machine
