"""LoraConfig refuses what is impossible; shapes and initial values of an adapter."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from nano_llama.core.errors import ConfigError
from nano_llama.core.lora import LAYER_TARGETS, TARGETS, LoraConfig, adapter_shapes, init_lora_matrices, merged_weight
from nano_llama.core.names import parameter_shapes


def test_scales():
    assert LoraConfig(r=16, alpha=32).scale == 2
    assert LoraConfig(r=16, alpha=32, rslora=True).scale == 8


def test_the_order_of_targets_does_not_matter():
    assert LoraConfig(target_modules=["v_proj", "q_proj"]) == LoraConfig(target_modules=("q_proj", "v_proj", "q_proj"))
    assert LoraConfig(target_modules="o_proj").target_modules == ("o_proj",)
    assert LoraConfig().target_modules == LAYER_TARGETS


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", 0), ("r", 2.0), ("r", True), ("alpha", 0), ("alpha", float("nan")), ("alpha", "16"), ("rslora", 1),
        ("dora", None), ("dropout", 1.0), ("dropout", -0.1), ("target_modules", ()), ("target_modules", None),
        ("target_modules", ["q_proj", "embed_tokens"]), ("target_modules", [["q_proj"]]),
        ("target_modules", "all-linear"),
    ],
)  # fmt: skip
def test_impossible_values_are_named(field, value):
    with pytest.raises(ConfigError, match=field):
        LoraConfig(**{field: value})


def test_it_is_frozen_and_refuses_dropout_before_the_head():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LoraConfig().r = 3
    with pytest.raises(ConfigError, match="lm_head"):
        LoraConfig(target_modules=["lm_head"], dropout=0.1)


@pytest.mark.parametrize("tied", [False, True])
def test_shapes_are_those_of_the_product(tiny_config, tied):
    config, lora = tiny_config("gqa", tied=tied), LoraConfig(r=3, dora=True, target_modules=TARGETS)
    shapes, matrices = adapter_shapes(lora, config), parameter_shapes(config) | {"lm_head.weight": (101, 48)}
    modules = [name.removesuffix(".lora_A") for name in shapes if name.endswith("lora_A")]
    assert len(modules) == 2 * 7 + 1 and len(shapes) == 3 * len(modules)
    for module in modules:
        rows, columns = matrices[f"{module}.weight"]
        assert shapes[f"{module}.lora_A"] == (3, columns) and shapes[f"{module}.lora_B"] == (rows, 3)
        assert shapes[f"{module}.lora_magnitude_vector"] == (rows,)


def test_fresh_matrices_are_seeded_apart_and_b_is_zero(tiny_config):
    config, lora = tiny_config(), LoraConfig(r=4)
    one, same, other = (init_lora_matrices(lora, config, seed) for seed in (1, 1, 2))
    assert list(one) == list(adapter_shapes(lora, config))
    for name, values in one.items():
        np.testing.assert_array_equal(values, same[name])
        if name.endswith("lora_B"):
            assert not values.any()
        else:  # uniform within 1/sqrt(in), whose deviation is that over sqrt(3)
            bound = values.shape[1] ** -0.5
            assert np.abs(values).max() <= bound and np.std(values) == pytest.approx(bound / 3**0.5, rel=0.15)
            assert not np.array_equal(values, other[name])
    q, k = (one[f"model.layers.0.self_attn.{x}_proj.lora_A"] for x in "qk")
    assert not np.array_equal(q, k)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_merged_is_the_sum_in_float32_or_wider(dora, dtype):
    """Against the formula in float64, row by row."""
    rng = np.random.default_rng(0)
    lora = LoraConfig(r=3, alpha=5, rslora=True, dora=dora)
    W, A, B = (rng.standard_normal(shape).astype(dtype) for shape in ((7, 6), (3, 6), (7, 3)))
    m = rng.random(7) + 1
    merged = merged_weight(W, lora, A, B, m.astype(dtype) if dora else None)
    assert merged.dtype == (np.float64 if dtype == np.float64 else np.float32)
    for row in range(7):
        expected = W[row].astype(float) + 5 / 3**0.5 * sum(
            B[row, i].astype(float) * A[i].astype(float) for i in range(3)
        )
        if dora:
            expected *= m.astype(dtype)[row].astype(float) / np.sqrt((expected**2).sum())
        np.testing.assert_allclose(
            merged[row], expected, **({"rtol": 1e-13} if dtype == np.float64 else {"rtol": 1e-5, "atol": 1e-6})
        )


def test_types_may_be_mixed_and_the_widest_counts():
    W, A, B = np.ones((2, 2), ml_dtypes.bfloat16), np.ones((1, 2), np.float16), np.ones((2, 1), np.float32)
    assert merged_weight(W, LoraConfig(r=1), A, B).dtype == np.float32
    assert merged_weight(W, LoraConfig(r=1), A, B.astype(np.float64)).dtype == np.float64


def test_a_row_of_zeros_stays_one_under_dora():
    W, A, B = np.eye(2, 3, dtype=np.float32), np.zeros((1, 3), np.float32), np.zeros((2, 1), np.float32)
    W[0] = 0
    merged = merged_weight(W, LoraConfig(r=1, dora=True), A, B, np.full(2, 5, np.float32))
    np.testing.assert_array_equal(merged, [[0, 0, 0], [0, 5, 0]])
