"""Tiny vision-language models, and batches for them: rows with no image, one and several."""

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.vision import VisionConfig, VisionLanguageConfig, to_pixel_values

IMAGE = 22  # the image token


def tiny_vision_language_config(*, tied=False, heads=2, scale_factor=2, patch_size=2, std=0.3) -> VisionLanguageConfig:
    """Images of 8 x 8 pixels. std: large, so that gradients do not vanish among so few numbers."""
    text = LlamaConfig(
        vocab_size=23, hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=std,
        head_dim=4,
    )  # fmt: skip
    vision = VisionConfig(
        image_size=8, patch_size=patch_size, hidden_size=6, intermediate_size=10, num_hidden_layers=2,
        num_attention_heads=heads, initializer_range=std,
    )  # fmt: skip
    return VisionLanguageConfig(text_config=text, vision_config=vision, image_token_id=IMAGE, scale_factor=scale_factor)


def batch(config: VisionLanguageConfig, seed=0):
    """tokens, targets (B,T), images (N,8,8,3) as bytes: three rows, with two images, one and none."""
    rng = np.random.default_rng(seed)
    n = config.image_seq_len
    tokens = rng.integers(0, IMAGE, (3, 2 * n + 3))
    tokens[0, : 2 * n] = IMAGE  # one right after the other
    tokens[1, 2 : 2 + n] = IMAGE
    targets = rng.integers(0, IMAGE, tokens.shape)
    targets[:, :3] = -100
    return tokens, targets, rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def case(config, seed=0, dtype=np.float64):
    tokens, targets, images = batch(config, seed)
    return tokens, targets, to_pixel_values(images, dtype)
