"""The model with an adapter: gradients by differences, what is frozen, files, merging. Volume 2's: tests/parity/."""

import numpy as np
import pytest

from helpers.adapters import random_adapter
from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.lora import LAYER_TARGETS, TARGETS, LoraConfig, adapter_shapes
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol1_numpy import GradientMismatch, Llama, gradcheck_model, trace
from nano_llama.vol1_numpy.finetune import (
    AdaptedLlama,
    apply_lora,
    load_adapter,
    merge_lora,
    save_adapter,
    with_adapter,
)
from nano_llama.vol1_numpy.generate import generate
from nano_llama.vol1_numpy.ops import adapted_linear
from nano_llama.vol1_numpy.ops.registry import PLAIN
from nano_llama.vol1_numpy.optim import make_optimizer

KINDS = {"lora": {}, "rslora": {"rslora": True}, "dora": {"dora": True}}
kinds = pytest.mark.parametrize("kind", KINDS)
tied_or_not = pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])


def adapted(config, kind="lora", targets=TARGETS, dtype=np.float64, **options):
    """A model with an adapter that changes something."""
    base = Llama.init(config, seed=1, dtype=dtype, **options)
    lora = LoraConfig(r=3, alpha=5, target_modules=targets, **KINDS[kind])
    return with_adapter(base, lora, random_adapter(lora, config, base.params, dtype=dtype))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, 101, (3, 7)), rng.integers(0, 101, (3, 7))
    targets[0, :4] = -100
    return tokens, targets


@pytest.fixture
def lengths_held(monkeypatch):
    """DoRA's lengths of rows stay what they were at first, as its gradient takes them."""
    known, measure = {}, adapted_linear.row_lengths

    def first(weight, *adapter):
        if id(weight) not in known:
            known[id(weight)] = measure(weight, *adapter)
        return known[id(weight)]

    monkeypatch.setattr(adapted_linear, "row_lengths", first)


@tied_or_not
@kinds
@pytest.mark.usefixtures("lengths_held")
def test_central_differences_agree_in_every_tensor_of_the_adapter(tiny_config, batch, kind, tied):
    model = adapted(tiny_config("gqa", tied=tied), kind, threads=1)
    checks = gradcheck_model(model, *batch, z_loss=0.01, samples=4)
    assert [check.name for check in checks] == list(adapter_shapes(model.lora, model.config))
    assert max(check.relative_error for check in checks) < 1e-7


def test_where_the_lengths_of_rows_move_too_differences_disagree_with_dora(tiny_config, batch):
    """The test above could fail."""
    model = adapted(tiny_config("gqa", num_hidden_layers=1), "dora", ("o_proj",), threads=1)
    with pytest.raises(GradientMismatch) as mismatch:
        gradcheck_model(model, *batch, samples=2)
    wrong = {check.name.rpartition(".")[2] for check in mismatch.value.checks if not check.relative_error < 1e-7}
    assert wrong == {"lora_A", "lora_B"}


@tied_or_not
@kinds
def test_a_fresh_adapter_changes_nothing_and_gives_b_a_gradient(tiny_config, batch, kind, tied):
    base = Llama.init(tiny_config("gqa", tied=tied), seed=1, dtype=np.float64)
    model = apply_lora(base, LoraConfig(target_modules=TARGETS, **KINDS[kind]))
    np.testing.assert_allclose(model.forward(batch[0]), base.forward(batch[0]), rtol=1e-12, atol=1e-13)
    loss, grads = model.loss_and_grads(*batch)
    assert loss == pytest.approx(base.loss(*batch), rel=1e-12)
    for name, grad in grads.items():
        assert bool(grad.any()) == (not name.endswith("lora_A")), name


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("lm_head",), LAYER_TARGETS])
@kinds
def test_training_moves_the_adapter_and_nothing_else(tiny_config, batch, kind, targets):
    base = Llama.init(tiny_config("gqa", tied=True), seed=1)
    before = {name: param.copy() for name, param in base.params.items()}
    model = apply_lora(base, LoraConfig(r=2, target_modules=targets, **KINDS[kind]))
    start = {name: tensor.copy() for name, tensor in model.adapter.items()}
    optimizer = make_optimizer("adamw", model.trainable, 0.02)
    losses = []
    for _ in range(12):
        loss, grads = model.loss_and_grads(*batch)
        assert list(grads) == list(model.adapter) == list(adapter_shapes(model.lora, model.config))
        optimizer.step(model.trainable, grads, 0.02)
        losses.append(loss)
    assert losses[-1] < losses[0] - 0.3
    for name, param in base.params.items():
        np.testing.assert_array_equal(param, before[name], err_msg=name)
    for name, tensor in model.adapter.items():
        assert not np.array_equal(tensor, start[name]), name
    assert base.loss(*batch) == losses[0], "the base is still a model of its own"


def test_no_product_is_made_for_a_gradient_of_what_is_frozen(tiny_config, batch):
    """Every matrix that a backward hands on is counted: with queries adapted, A and B of each layer, nothing else."""
    model = adapted(tiny_config("gqa"), targets=("q_proj",), threads=1)
    handed = []

    def watched(dy, cache):
        dx, grads = adapted_linear.adapted_linear_backward(dy, cache)
        handed.append(sorted(grads))
        return dx, grads

    model.ops = model.with_ops(linear=model.ops.linear._replace(backward=watched)).ops
    model.loss_and_grads(*batch)
    layers = model.config.num_hidden_layers
    assert len(handed) == 7 * layers + 1
    assert sorted(filter(None, handed)) == [["lora_A", "lora_B"]] * layers
    assert model.ops.embedding.backward(None, None) == {}


@pytest.mark.parametrize("options", [{"micro_batch": 1}, {"recompute": True}])
@kinds
def test_threads_micro_batches_recomputation_and_plain_ops_change_nothing(tiny_config, batch, kind, options):
    config = tiny_config("gqa", tied=True)
    loss, grads = adapted(config, kind, threads=1).loss_and_grads(*batch)
    for model in (adapted(config, kind, threads=3), adapted(config, kind, threads=1, ops=PLAIN)):
        other_loss, other = model.loss_and_grads(*batch, **options)
        assert other_loss == pytest.approx(loss, rel=1e-12)
        for name, grad in grads.items():
            np.testing.assert_allclose(other[name], grad, rtol=1e-9, atol=1e-13, err_msg=name)


@tied_or_not
@kinds
def test_merged_it_is_an_ordinary_model_with_the_same_logits(tiny_config, batch, kind, tied):
    model = adapted(tiny_config("gqa", tied=tied), kind)
    before = {name: param.copy() for name, param in model.params.items()}
    merged = merge_lora(model)
    assert type(merged) is Llama and not merged.config.tie_word_embeddings
    np.testing.assert_allclose(merged.forward(batch[0]), model.forward(batch[0]), rtol=1e-10, atol=1e-12)
    for name, param in before.items():
        np.testing.assert_array_equal(model.params[name], param, err_msg=name)
    assert merged.loss_and_grads(*batch)[1].keys() == merged.params.keys()


def test_a_tied_head_without_adapter_stays_tied(tiny_config):
    merged = merge_lora(adapted(tiny_config("gqa", tied=True), targets=LAYER_TARGETS))
    assert merged.config.tie_word_embeddings and "lm_head.weight" not in merged.params


@kinds
def test_saved_and_loaded_it_is_the_same_and_goes_on_learning(tiny_config, tmp_path, batch, kind):
    model = adapted(tiny_config("gqa", tied=True), kind, dtype=np.float32)
    save_adapter(model, tmp_path / "adapter", base_model="org/base")
    loaded = load_adapter(model.base, tmp_path / "adapter")
    assert loaded.lora == model.lora
    for name, tensor in model.adapter.items():
        np.testing.assert_array_equal(loaded.adapter[name], tensor, err_msg=name)
    make_optimizer("sgd", loaded.trainable, 0.1).step(loaded.trainable, loaded.loss_and_grads(*batch)[1], 0.1)
    assert load_adapter(model.base, tmp_path / "adapter").loss(*batch) == model.loss(*batch)
    assert loaded.loss(*batch) != model.loss(*batch)


def test_saved_merged_it_is_what_the_formats_merge(tiny_config, tmp_path):
    """formats/merged.py reads base and adapter as one; the same bits."""
    model = adapted(tiny_config("gqa", tied=True), "dora", dtype=np.float32)
    model.base.save(tmp_path / "base")
    save_adapter(model, tmp_path / "adapter")
    read, merged = Llama.from_pretrained(tmp_path / "base", adapter=tmp_path / "adapter"), merge_lora(model)
    assert read.config == merged.config
    for name, param in merged.params.items():
        np.testing.assert_array_equal(read.params[name], param, err_msg=name)


@kinds
def test_it_generates_with_and_without_a_cache_what_the_merged_model_generates(tiny_config, kind):
    model = adapted(tiny_config("gqa"), kind)
    asked = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    expected = list(generate(merge_lora(model), [1, 2, 3], asked))
    assert expected != list(generate(model.base, [1, 2, 3], asked))
    for use_cache in (True, False):
        assert list(generate(model, [1, 2, 3], asked, use_cache=use_cache)) == expected


def test_traces_show_the_adapted_products(tiny_config, batch):
    model = adapted(tiny_config("gqa", tied=True), "dora")
    ours, merged = trace(model, batch[0]), trace(merge_lora(model), batch[0])
    assert list(ours) == list(merged)
    for name, value in merged.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_what_cannot_be_is_refused(tiny_config, tmp_path):
    model = adapted(tiny_config("gqa"))
    with pytest.raises(UserError, match="already has an adapter"):
        apply_lora(model, LoraConfig())
    with pytest.raises(UserError, match="save_adapter"):
        model.save(tmp_path / "whole")
    name = "model.layers.1.mlp.up_proj.lora_B"
    for wrong, match in (
        ({n: t for n, t in model.adapter.items() if n != name}, f"{name} is missing"),
        (model.adapter | {"lm_head.bias": np.zeros(3)}, "lm_head.bias is not"),
        (model.adapter | {name: model.adapter[name].T}, f"{name} is float64"),
        (model.adapter | {name: model.adapter[name].astype(np.float32)}, f"{name} is float32"),
    ):
        with pytest.raises(UserError, match=match):
            AdaptedLlama(model.base, model.lora, wrong)


def test_an_adapter_of_another_model_is_refused(tiny_config, tmp_path):
    model = adapted(tiny_config("gqa"), dtype=np.float32)
    save_adapter(model, tmp_path)
    with pytest.raises(FormatError, match="has shape"):
        load_adapter(Llama.init(tiny_config("mha")), tmp_path)
