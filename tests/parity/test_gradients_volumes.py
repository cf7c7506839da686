"""Volume 1's gradients against Volume 2's autograd, tensor by tensor, over every kind of model we have."""

import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig, RopeScaling
from nano_llama.core.errors import UserError
from nano_llama.core.init import init_params
from nano_llama.formats import save_hf
from nano_llama.verify.gradients import compare_gradients, verify_gradients

pytest.importorskip("torch")

V = 37
LLAMA3 = RopeScaling(
    rope_type="llama3", factor=4.0, original_max_position_embeddings=16, low_freq_factor=1.0, high_freq_factor=4.0
)
SCALINGS = {
    "default": None,
    "linear": RopeScaling(rope_type="linear", factor=2.0),
    "dynamic": RopeScaling(rope_type="dynamic", factor=2.0),
    "yarn": RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    "llama3": LLAMA3,
}


def tiny(**changes):
    shape = {
        "vocab_size": V,
        "hidden_size": 24,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 16,
        "initializer_range": 0.2,
    }
    return LlamaConfig(**{**shape, **changes})


def batch(B=2, T=11, seed=0):
    rng = np.random.default_rng(seed)
    tokens, targets = rng.integers(0, V, (B, T)), rng.integers(0, V, (B, T))
    targets[0, :3] = -100
    return tokens, targets


def check(config, dtype="float64", **shape):
    report = compare_gradients(config, init_params(config, seed=1), *batch(**shape), dtype=dtype)
    assert report.ok, report.first_failure
    assert len(report.rows) == 1 + len(init_params(config))


@pytest.mark.parametrize("kv_heads", [6, 2, 1], ids=["MHA", "GQA", "MQA"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_attention_and_head_kinds(kv_heads, tied, dtype):
    check(tiny(num_key_value_heads=kv_heads, tie_word_embeddings=tied), dtype)


@pytest.mark.parametrize("kind", SCALINGS)
def test_rope_kinds_also_beyond_the_trained_context(kind):
    check(tiny(rope_scaling=SCALINGS[kind]), T=20)


@pytest.mark.parametrize(("B", "T"), [(1, 1), (1, 7), (3, 1)])
def test_small_batches(B, T):
    check(tiny(head_dim=10), B=B, T=T)


def test_all_targets_ignored_is_zero_loss_and_zero_gradients():
    config = tiny()
    tokens, targets = batch()
    report = compare_gradients(config, init_params(config), tokens, np.full_like(targets, -100))
    assert report.ok and all(row.relative_error == 0 for row in report.rows)


def test_a_wrong_entry_is_named_with_its_index(monkeypatch):
    from nano_llama.vol1_numpy import Llama

    honest = Llama.loss_and_grads
    name = "model.layers.1.self_attn.v_proj.weight"

    def planted(self, tokens, targets, **options):
        loss, grads = honest(self, tokens, targets, **options)
        grads[name] = grads[name].copy()
        grads[name][3, 5] += 1e-6
        return loss, grads

    monkeypatch.setattr(Llama, "loss_and_grads", planted)
    config = tiny()
    report = compare_gradients(config, init_params(config, seed=1), *batch())
    assert not report.ok
    assert report.first_failure.name == name and report.first_failure.worst == (3, 5)
    assert [row.name for row in report.rows if not row.ok] == [name]


def test_a_checkpoint_on_disk(tmp_path):
    config = tiny()
    save_hf(tmp_path / "model", config, init_params(config, seed=2))
    report = verify_gradients(tmp_path / "model", batch_size=3, context=100)  # cut to the model's context
    assert report.ok and report.path == str(tmp_path / "model")
    assert report.to_dict()["rows"][1]["kind"] == "gradient"


def test_half_precision_and_empty_batches_are_refused(tmp_path):
    config = tiny()
    with pytest.raises(UserError, match="bfloat16"):
        compare_gradients(config, init_params(config), *batch(), dtype="bfloat16")
    with pytest.raises(UserError, match="0 x 48"):
        verify_gradients(tmp_path, batch_size=0)
