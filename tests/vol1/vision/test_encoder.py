"""The encoder's gradients: differences, and the form of attention that is handed in does not matter."""

import numpy as np
import pytest

from helpers.vision_cases import case, tiny_vision_language_config
from nano_llama.core.vision.init import init_vision_params
from nano_llama.core.vision.names import VISION, encoder_shapes
from nano_llama.vol1_numpy import gradcheck
from nano_llama.vol1_numpy.ops.registry import FAST, PLAIN
from nano_llama.vol1_numpy.vision.encoder import encoder_backward, encoder_forward

CONFIG = tiny_vision_language_config()
ENCODER = CONFIG.vision_config


def params(seed=0):
    drawn = init_vision_params(CONFIG, seed, np.float64)
    rng = np.random.default_rng(seed)  # biases and gains that are not 0 and 1
    return {
        name: drawn[VISION + name] + (0.2 * rng.standard_normal(shape) if len(shape) == 1 else 0)
        for name, shape in encoder_shapes(ENCODER).items()
    }


@pytest.mark.parametrize("ops", [PLAIN, FAST], ids=["plain", "fast"])
def test_differences(ops):
    p, pixels = params(), case(CONFIG)[2]
    names = list(p)

    def forward(pixel_values, *arrays):
        return encoder_forward(pixel_values, dict(zip(names, arrays, strict=True)), ENCODER, ops.attention)

    def backward(dy, cache):
        dpixels, grads = encoder_backward(dy, cache)
        return dpixels, *(grads[name] for name in names)

    gradcheck(forward, backward, [pixels, *p.values()], samples=6, tolerance=1e-7)


def test_images_do_not_see_each_other():
    p, pixels = params(), case(CONFIG)[2]
    together, _ = encoder_forward(pixels, p, ENCODER, PLAIN.attention)
    alone, _ = encoder_forward(pixels[1:2], p, ENCODER, PLAIN.attention)
    np.testing.assert_allclose(together[1:2], alone, rtol=1e-12, atol=1e-12)


def test_patches_see_each_other_in_all_directions():
    p, pixels = params(), case(CONFIG)[2]
    before, _ = encoder_forward(pixels[:1], p, ENCODER, PLAIN.attention)
    pixels[0, :, -1, -1] += 1  # the last patch
    after, _ = encoder_forward(pixels[:1], p, ENCODER, PLAIN.attention)
    assert (np.abs(after - before).max(axis=-1) > 1e-6).all()


def test_positions_tell_patches_apart():
    p = params()
    same = np.full((1, 3, 8, 8), 0.5)
    y, _ = encoder_forward(same, p, ENCODER, PLAIN.attention)
    assert np.ptp(y[0], axis=0).max() > 1e-3
    p["embeddings.position_embedding.weight"][:] = 0
    y, _ = encoder_forward(same, p, ENCODER, PLAIN.attention)
    assert np.ptp(y[0], axis=0).max() < 1e-12


def test_a_bias_of_the_keys_changes_nothing():
    p, pixels = params(), case(CONFIG)[2]
    before, _ = encoder_forward(pixels, p, ENCODER, PLAIN.attention)
    p["encoder.layers.0.self_attn.k_proj.bias"] += 1
    after, _ = encoder_forward(pixels, p, ENCODER, PLAIN.attention)
    np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-12)
