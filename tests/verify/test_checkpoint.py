"""verify_checkpoint: what agrees passes, and each planted mistake is named with its cause."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from nano_llama.core.errors import UserError  # noqa: E402
from nano_llama.core.init import init_params  # noqa: E402
from nano_llama.core.rope import half_to_interleaved, interleaved_to_half  # noqa: E402
from nano_llama.formats import save_hf  # noqa: E402
from nano_llama.verify.checkpoint import verify_checkpoint  # noqa: E402
from nano_llama.verify.permutation_check import find_permuted, pair_order  # noqa: E402

Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def saved(tmp_path, tiny_config):
    def save(name, config=None, **changed):
        config = config or tiny_config()
        save_hf(tmp_path / name, config, {**init_params(config, seed=1), **changed})
        return tmp_path / name

    return save


def interleaved(name, config):
    return half_to_interleaved(torch.from_numpy(init_params(config, seed=1)[name]), config.head_dim).numpy()


@pytest.mark.parametrize("tied", [False, True])
def test_a_sound_checkpoint_passes(saved, tiny_config, tied):
    report = verify_checkpoint(saved("good", tiny_config(tied=tied)))
    assert report.ok and not report.causes, report.causes
    kinds = [row.kind for row in report.rows]
    assert kinds.count("logits") == 1 and kinds.count("activation") == 4
    assert kinds.count("tensor") == len(init_params(tiny_config(tied=tied)))
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def test_a_permuted_matrix_is_named(saved, tiny_config):
    bad = saved("bad", **{Q: interleaved(Q, tiny_config())})
    report = verify_checkpoint(bad, reference=saved("good"))
    assert not report.ok and report.first_failure.name == Q
    assert any("q/k permutation" in cause and Q in cause and "interleaved" in cause for cause in report.causes)


def test_rows_in_any_other_order_are_named(saved, tiny_config):
    shuffled = np.random.default_rng(0).permutation(init_params(tiny_config(), seed=1)[Q])
    report = verify_checkpoint(saved("bad", **{Q: shuffled}), reference=saved("good"))
    assert any("another order" in cause and Q in cause for cause in report.causes)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"rope_theta": 500.0}, "RoPE theta"),
        ({"rms_norm_eps": 1e-2}, "norm epsilon"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "RoPE scaling"),
        ({"tie_word_embeddings": True}, "tied head"),
    ],
)
def test_a_different_setting_is_named(saved, tiny_config, change, cause):
    report = verify_checkpoint(saved("bad", tiny_config(**change)), reference=saved("good"))
    assert not report.ok
    assert any(cause in sentence for sentence in report.causes), report.causes


def test_one_changed_number_is_found(saved, tiny_config):
    name = "model.layers.0.mlp.down_proj.weight"
    weights = init_params(tiny_config(), seed=1)[name].copy()
    weights[5, 7] += 0.5
    report = verify_checkpoint(saved("bad", **{name: weights}), reference=saved("good"))
    assert report.first_failure.name == name and report.first_failure.worst == (5, 7)


def test_files_transformers_cannot_read_are_refused(tmp_path, saved):
    with pytest.raises(UserError):
        verify_checkpoint(tmp_path / "nothing")
    with pytest.raises(UserError, match="transformers cannot read"):
        verify_checkpoint(saved("good"), reference=next(saved("other").glob("*.safetensors")))


def test_pair_order_tells_the_layouts_apart():
    """Rows with norms as training leaves them: alike within a pair and along the frequencies."""
    rng = np.random.default_rng(0)
    K, heads = 16, 6
    norms = np.exp(np.cumsum(rng.normal(size=(heads, K // 2)), axis=1))  # (heads, K/2)
    rows = rng.normal(size=(heads, 2, K // 2, 32))
    rows *= (norms / np.linalg.norm(rows, axis=-1).mean(1))[:, None, :, None]
    half = rows.reshape(heads * K, 32)
    wrong = half_to_interleaved(torch.from_numpy(half), K).numpy()
    assert pair_order(half, K)[0] > 0.9
    assert pair_order(wrong, K)[1] > 0.9 and pair_order(wrong, K)[0] < 0.5
    back = interleaved_to_half(torch.from_numpy(wrong), K).numpy()
    assert np.array_equal(back, half)


def test_an_untrained_model_raises_no_suspicion(tiny_config):
    from nano_llama.vol2_torch import Llama

    model = Llama.init(tiny_config(num_hidden_layers=6))
    assert find_permuted(model, torch.arange(40)[None]) == []


@pytest.mark.slow  # reads and writes a real model in float32
def test_a_permuted_matrix_of_a_real_model_is_found_without_a_reference(smollm2, tmp_path):
    from nano_llama.formats import open_weights, read_config
    from nano_llama.tokenizer import Tokenizer

    name = "model.layers.7.self_attn.q_proj.weight"
    config = read_config(smollm2)
    with open_weights(smollm2) as weights:
        params = {key: weights[key] for key in weights}
    params[name] = half_to_interleaved(torch.tensor(params[name]), config.head_dim).numpy()
    save_hf(tmp_path / "bad", config, params, Tokenizer.from_pretrained(smollm2))
    report = verify_checkpoint(tmp_path / "bad")
    assert not report.ok and any(name in cause and "permutation" in cause for cause in report.causes)
