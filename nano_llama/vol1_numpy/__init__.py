"""Volume 1: a LLaMA by hand in NumPy. Every forward and backward derived, nothing hidden, nothing automatic.

Read it in this order: ops/ (one op per file, the derivation in the docstring), layer.py, model.py, optim/, trainer.py,
generate.py, finetune.py; gradcheck.py measures any gradient, yours too; traces.py shows a pass from inside. This
package imports neither torch nor numba. Tests: tests/vol1/.
"""

from nano_llama.vol1_numpy.gradcheck import GradientMismatch, gradcheck, gradcheck_model
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.traces import trace

__all__ = ["GradientMismatch", "Llama", "gradcheck", "gradcheck_model", "trace"]
