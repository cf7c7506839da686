"""Volume 2: the same LLaMA in PyTorch, for training. `from nano_llama.vol2_torch import Llama`.

The derivations are in vol1_numpy. Tests: tests/vol2/.
"""

from nano_llama.core.env import sleep_at_barriers
from nano_llama.core.errors import import_extra

sleep_at_barriers()  # before torch is imported
import_extra("torch", "train", "Volume 2")

from nano_llama.vol2_torch.cache import KVCache  # noqa: E402
from nano_llama.vol2_torch.model import Llama  # noqa: E402

__all__ = ["KVCache", "Llama"]
