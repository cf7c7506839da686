"""Named model sizes. The vocabulary size is replaced by the tokenizer's, once that is known.

Not here: how such a model is trained (training/presets.py). Tests: tests/core/test_names_init_presets.py, which
checks every parameter count below.

    name     parameters        V        for
    tiny             3,760     64       tests that run in milliseconds
    char           800,000     65       Shakespeare by characters, two minutes on a laptop (nanoGPT's CPU shape)
    mini         2,816,064     4,096    the quickstart
    nano         8,196,160     4,096    four minutes on one GPU; the model that ships
    125m       134,515,008     49,152   one GPU; SmolLM2's shape, deep and thin (Liu et al. 2024, arXiv 2402.14905)
    gpt2       123,551,232     50,257   GPT-2's size (Radford et al. 2019), as a LLaMA
    350m       361,821,120     49,152   one GPU, a day
    1b       1,100,048,384     32,000   several GPUs; TinyLlama's shape
    8b       8,030,261,248     128,256  Llama 3.1's shape, RoPE kind included
"""

from typing import Any

from nano_llama.core.config import LlamaConfig, RopeScaling
from nano_llama.core.errors import UserError


def _shape(D: int, L: int, H: int, G: int, F: int, context: int, V: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": D,
        "num_hidden_layers": L,
        "num_attention_heads": H,
        "num_key_value_heads": G,
        "intermediate_size": F,
        "max_position_embeddings": context,
        "vocab_size": V,
        "tie_word_embeddings": True,
        **more,
    }


_LLAMA3_ROPE = RopeScaling(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)

MODEL_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": _shape(D=16, L=1, H=2, G=1, F=40, context=64, V=64),
    "char": _shape(D=128, L=4, H=4, G=4, F=344, context=64, V=65),
    "mini": _shape(D=192, L=5, H=6, G=3, F=512, context=256, V=4096),
    "nano": _shape(D=320, L=6, H=5, G=5, F=768, context=512, V=4096),  # best of four shapes after 7.4M tokens
    "125m": _shape(D=576, L=30, H=9, G=3, F=1536, context=2048, V=49152),
    "gpt2": _shape(D=768, L=12, H=12, G=12, F=2048, context=1024, V=50257),
    "350m": _shape(D=960, L=32, H=15, G=5, F=2560, context=2048, V=49152),
    "1b": _shape(D=2048, L=22, H=32, G=4, F=5632, context=2048, V=32000, tie_word_embeddings=False),
    "8b": _shape(
        D=4096, L=32, H=32, G=8, F=14336, context=131072, V=128256,
        tie_word_embeddings=False, rope_theta=500000.0, rope_scaling=_LLAMA3_ROPE,
    ),
}  # fmt: skip


def model_preset(name: str, **changes: Any) -> LlamaConfig:
    """The named shape, with any field changed. Raises UserError for an unknown name."""
    if name not in MODEL_PRESETS:
        raise UserError(f"Unknown model preset {name!r}.", hint=f"Known: {', '.join(MODEL_PRESETS)}.")
    return LlamaConfig(**{**MODEL_PRESETS[name], **changes})
