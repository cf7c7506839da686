"""RoPE's angles against transformers' own functions, every kind, within and beyond the original context."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.rope import half_to_interleaved, interleaved_to_half, rope_frequencies, rope_tables

KINDS = ["default", "linear", "dynamic", "yarn", "llama3"]


def their_tables(config, positions):
    torch = pytest.importorskip("torch")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    transformers = pytest.importorskip("transformers")
    rope = llama.LlamaRotaryEmbedding(transformers.LlamaConfig(**config.to_hf_dict()))
    cos, sin = rope(torch.zeros(1), torch.tensor(positions)[None])
    half = config.head_dim // 2
    return cos[0, :, :half].numpy(), sin[0, :, :half].numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [8, 64, 300])
@pytest.mark.parametrize("K", [8, 64, 128])
def test_tables_agree_with_transformers(tiny_config, kind, length, K):
    config = tiny_config(rope=kind, head_dim=K)
    positions = np.arange(length)
    for ours, theirs in zip(rope_tables(config, positions), their_tables(config, positions), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)  # float32 angles up to 300 radians


@pytest.mark.parametrize(
    "extra",
    [
        {"attention_factor": 1.3},
        {"mscale": 1.0, "mscale_all_dim": 0.7},
        {"beta_fast": 16.0, "beta_slow": 2.0},
        {"truncate": False},
        {"beta_fast": 1.0, "beta_slow": 1.0},
    ],
)
def test_yarn_options_agree_with_transformers(tiny_config, extra):
    config = tiny_config(head_dim=64).replace(
        rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, **extra}
    )
    for ours, theirs in zip(rope_tables(config, np.arange(64)), their_tables(config, np.arange(64)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_default_kind_is_the_formula(tiny_config):
    config = tiny_config(head_dim=8, rope_theta=500.0)
    cos, sin = rope_tables(config, np.array([0, 3, 1000]), np.float64)
    for row, m in enumerate((0, 3, 1000)):
        for i in range(4):
            angle = m * 500.0 ** (-2 * i / 8)
            assert cos[row, i] == pytest.approx(np.cos(angle), abs=1e-9)
            assert sin[row, i] == pytest.approx(np.sin(angle), abs=1e-9)


def test_only_dynamic_looks_at_the_length(tiny_config):
    for kind in KINDS:
        config = tiny_config(rope=kind)
        same = np.array_equal(rope_frequencies(config, 10)[0], rope_frequencies(config, 1000)[0])
        assert same == (kind != "dynamic"), kind


def test_dtype_is_what_was_asked_for(tiny_config):
    for dtype in (np.float32, np.float64):
        assert all(table.dtype == dtype for table in rope_tables(tiny_config(), np.arange(3), dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_positions_of_any_shape(tiny_config, kind):
    config = tiny_config(rope=kind, head_dim=16)
    positions = np.random.default_rng(0).integers(0, 60, (3, 8))  # T = K/2, which broadcasting would take for it
    for table, rows in zip(rope_tables(config, positions), rope_tables(config, positions.ravel()), strict=True):
        np.testing.assert_array_equal(table, rows.reshape(3, 8, 8))
    assert rope_tables(config, np.array(5))[0].shape == (8,)


def test_layouts_of_q_and_k_give_the_same_attention(tiny_config):
    """Rotated in its own layout, each order of the rows gives the same products of queries and keys."""
    from nano_llama.vol1_numpy.ops import rope_forward

    rng, K, T, D = np.random.default_rng(1), 8, 5, 12
    w_q, w_k, x = rng.standard_normal((2 * K, D)), rng.standard_normal((2 * K, D)), rng.standard_normal((1, T, D))
    cos, sin = rope_tables(tiny_config(head_dim=K), np.arange(T), np.float64)

    def scores(w_q, w_k, layout):
        q, k = ((x @ w.T).reshape(1, T, 2, K).swapaxes(1, 2) for w in (w_q, w_k))
        q, k = (rope_forward(each, cos, sin, layout)[0] for each in (q, k))
        return q @ k.swapaxes(-1, -2)

    turned = [half_to_interleaved(w, K) for w in (w_q, w_k)]
    np.testing.assert_allclose(scores(*turned, "interleaved"), scores(w_q, w_k, "half"), rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(interleaved_to_half(turned[0], K), w_q)
    with pytest.raises(UserError, match="12 rows"):
        half_to_interleaved(w_q[:12], K)
