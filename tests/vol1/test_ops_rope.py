"""RoPE: both layouts, the property it was made for, and Hugging Face's rotation."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy.ops import rope_backward, rope_forward


def angles(T, K, rng):
    a = rng.uniform(-9, 9, (T, K // 2))
    return np.cos(a), np.sin(a)


def test_half_is_hugging_faces_rotate_half():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 5, 8))
    cos, sin = angles(5, 8, rng)
    wide_cos, wide_sin = np.concatenate([cos, cos], -1), np.concatenate([sin, sin], -1)  # (T,K), as they keep them
    rotated = np.concatenate([-x[..., 4:], x[..., :4]], -1)
    np.testing.assert_allclose(rope_forward(x, cos, sin)[0], x * wide_cos + rotated * wide_sin, rtol=1e-12)


def test_interleaved_is_half_after_a_permutation():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 2, 4, 6))
    cos, sin = angles(4, 6, rng)
    order = [0, 2, 4, 1, 3, 5]
    np.testing.assert_allclose(
        rope_forward(x, cos, sin, "interleaved")[0][..., order], rope_forward(x[..., order], cos, sin)[0], rtol=1e-12
    )


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_products_depend_on_distance_only(layout):
    """<R(t) q, R(s) k> = <R(t + 7) q, R(s + 7) k>, and lengths do not change."""
    rng = np.random.default_rng(2)
    q, k = rng.standard_normal((2, 1, 1, 1, 8))
    frequencies = rng.uniform(0.1, 2, 4)

    def turned(x, position):
        return rope_forward(x, np.cos(position * frequencies)[None], np.sin(position * frequencies)[None], layout)[0]

    near = np.sum(turned(q, 5) * turned(k, 2))
    far = np.sum(turned(q, 12) * turned(k, 9))
    np.testing.assert_allclose(near, far, rtol=1e-12)
    np.testing.assert_allclose(np.sum(turned(q, 5) ** 2), np.sum(q**2), rtol=1e-12)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_backward_is_the_inverse_rotation(layout):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 2, 5, 8))
    y, cache = rope_forward(x, *angles(5, 8, rng), layout)
    np.testing.assert_allclose(rope_backward(y, cache), x, rtol=1e-12)


def test_another_layout_is_refused():
    with pytest.raises(UserError, match="'quarter'"):
        rope_forward(np.ones((1, 1, 1, 2)), np.ones((1, 1)), np.ones((1, 1)), "quarter")
