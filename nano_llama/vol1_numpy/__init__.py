"""Volume 1: a LLaMA by hand in NumPy. Every forward and backward derived, nothing hidden, no automatic anything.

Read it in this order: ops/ (one op a file, the derivation in the docstring), layer.py, model.py, optim/, train.py,
generate.py; gradcheck.py measures any gradient, yours too; traces.py shows a pass from inside. Not here: other engines
(vol2_torch trains with PyTorch, vol3_engine serves); this package imports neither torch nor numba. Tests: tests/vol1/.
"""

from nano_llama.vol1_numpy.gradcheck import GradientMismatch, gradcheck, gradcheck_model
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.study_config import StudyConfig
from nano_llama.vol1_numpy.study_model import StudyLlama
from nano_llama.vol1_numpy.traces import trace

__all__ = ["GradientMismatch", "Llama", "StudyConfig", "StudyLlama", "gradcheck", "gradcheck_model", "trace"]
