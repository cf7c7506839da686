"""nano-llama-engine: one LLaMA, written three times, and proved to be the same model.

The public names are imported on first use, so that `import nano_llama` takes milliseconds and never imports torch:

    LlamaConfig      the shape of a model                       nano_llama/core/config.py
    Tokenizer        text <-> token ids                         nano_llama/tokenizer/
    LLM              load a model and generate text             nano_llama/vol3_engine/llm.py
    SamplingParams   how the next token is chosen               nano_llama/core/sampling/

Volumes 1 and 2 are imported as nano_llama.vol1_numpy and nano_llama.vol2_torch.
Tests: tests/test_public_api.py.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nano_llama.core.version import VERSION as __version__
from nano_llama.moved import forward_old_names

if TYPE_CHECKING:
    from nano_llama.core.config import LlamaConfig
    from nano_llama.core.sampling import SamplingParams
    from nano_llama.tokenizer import Tokenizer
    from nano_llama.vol3_engine.llm import LLM

forward_old_names()

__all__ = ["LLM", "LlamaConfig", "SamplingParams", "Tokenizer", "__version__"]

_HOMES = {
    "LlamaConfig": "nano_llama.core.config",
    "Tokenizer": "nano_llama.tokenizer",
    "LLM": "nano_llama.vol3_engine.llm",
    "SamplingParams": "nano_llama.core.sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nano_llama' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
