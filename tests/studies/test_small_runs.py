"""The studies' text, probe and training, against what they claim to measure."""

import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig
from nano_llama.core.init import init_params
from nano_llama.studies.small_runs import characters, probe, smooth, train
from nano_llama.studies.study_config import StudyConfig
from nano_llama.studies.study_model import StudyLlama
from nano_llama.vol1_numpy import Llama, trace

CONFIG = LlamaConfig(
    vocab_size=31,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=12,
    initializer_range=0.2,
)


def batch():
    rng = np.random.default_rng(0)
    return rng.integers(0, 31, (2, 12)), rng.integers(0, 31, (2, 12))


def test_characters_come_from_the_standard_library_in_a_fixed_order():
    ids, V = characters(5000)
    again, _ = characters(5000)
    assert len(ids) == 5000 and ids.min() == 0 and ids.max() == V - 1 and 40 < V < 300
    np.testing.assert_array_equal(ids, again)


def test_the_probe_sees_what_the_model_computes():
    model = Llama.init(CONFIG)
    tokens, targets = batch()
    seen = probe(lambda ops: Llama.init(CONFIG, ops=ops), tokens, targets)
    loss, grads = model.loss_and_grads(tokens, targets)
    assert seen.loss == pytest.approx(loss, rel=1e-6)
    wanted = np.sqrt(sum(np.sum(g**2) for name, g in grads.items() if name.startswith("model.layers.2.")))
    assert seen.gradients[2] == pytest.approx(float(wanted), rel=1e-5)
    values = trace(model, tokens)
    streams = [values["model.embed_tokens"], *(values[f"model.layers.{i}"] for i in range(3))]
    assert seen.stream == pytest.approx([float(np.sqrt(np.mean(x**2))) for x in streams], rel=1e-5)
    weights = values["model.layers.1.self_attn.weights"][0, 0, 5, :6]  # the sixth query of the first head
    assert 0 < -np.sum(weights * np.log(weights)) / np.log(6) <= 1
    assert len(seen.entropy) == 3 and all(0 < e <= 1 for e in seen.entropy)


def test_equal_scores_have_the_entropy_of_uniform_attention():
    params = init_params(CONFIG)
    for name, param in params.items():
        if name.endswith("q_proj.weight"):
            param[:] = 0
    assert probe(lambda ops: Llama(CONFIG, params, ops=ops), *batch()).entropy == pytest.approx([1.0] * 3, abs=1e-6)


def test_unscaled_scores_lower_the_entropy():
    def entropy(study):
        return probe(lambda ops: StudyLlama(CONFIG, init_params(CONFIG), study=study, ops=ops), *batch()).entropy[0]

    assert entropy(StudyConfig(attention_scale=False)) < entropy(StudyConfig()) - 1e-3


@pytest.mark.filterwarnings("ignore:invalid value")
def test_training_lowers_the_loss_and_stops_at_nan():
    ids = np.tile(np.arange(31), 40)
    options = {"steps": 30, "batch": 2, "context": 12, "warmup": 3, "clip": 1.0, "seed": 0}
    losses = train(Llama.init(CONFIG), ids, lr=1e-2, **options)
    assert len(losses) == 30 and losses[-1] < 0.5 * losses[0]
    broken = Llama.init(CONFIG)
    broken.params["model.norm.weight"][:] = np.inf
    assert train(broken, ids, lr=1e-2, **options) == [np.inf]


def test_smooth_is_the_mean_over_a_window():
    values = [float(v) for v in range(1, 8)]
    assert smooth(values, 3) == pytest.approx([1, 1.5, 2, 3, 4, 5, 6])
