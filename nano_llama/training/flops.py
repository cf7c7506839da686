"""How much arithmetic a model's training takes: what MFU (model FLOPs utilization) is counted in.

Chowdhery et al. 2022, "PaLM" (arXiv 2204.02311), appendix B: a token costs 6 N + 12 L H K T. Only useful work counts:
recomputed activations are not counted twice, and attention is counted whole, without its causal half being saved; a
sliding window takes the place of T where it is shorter.
What a device can do is measured in vol2_torch/peak_flops.py. Tests: tests/training/test_preflight.py.
"""

from nano_llama.core.vision.config import ModelConfig, VisionLanguageConfig


def flops_per_token(config: ModelConfig, context: int, *, frozen: bool = False, frozen_encoder: bool = False) -> float:
    """FLOPs per token of a training step (forward and backward) at this context length T.

    N: the parameters that multiply; an embedding that is not also the head is only looked up. frozen: beneath an
    adapter, whose own are few, no gradient of the weights is computed: 4 N. Of a model that reads images, a row of
    tokens has one image, whose patches pass the encoder; frozen_encoder: forward alone, 2 N.
    """
    if isinstance(config, VisionLanguageConfig):
        text, patches = config.text_config, config.vision_config.num_patches
        encoder = (2.0 if frozen_encoder else 6.0) * (config.num_parameters - text.num_parameters) * patches / context
        return flops_per_token(text, context, frozen=frozen) + encoder
    looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    seen = min(context, config.sliding_window or context)
    attention = 12 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * seen
    return (4.0 if frozen else 6.0) * (config.num_parameters - looked_up) + attention
