"""The model by itself: masks, ignored targets, accumulation, recomputation, threads, files, refusals."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.init import init_params
from nano_llama.vol1_numpy import Llama
from nano_llama.vol1_numpy.masks import causal_mask, document_mask, padding_mask
from nano_llama.vol1_numpy.ops.registry import PLAIN


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, 101, (5, 9)), rng.integers(0, 101, (5, 9))
    targets[0, 2:7] = -100
    targets[4] = -100
    return tokens, targets


@pytest.fixture
def model(tiny_config):
    return Llama.init(tiny_config("gqa"), seed=1, dtype=np.float64, threads=2)


def assert_same(ours, theirs, rtol=1e-10):
    assert ours[0] == pytest.approx(theirs[0], rel=1e-12)
    assert ours[1].keys() == theirs[1].keys()
    for name, grad in theirs[1].items():
        np.testing.assert_allclose(ours[1][name], grad, rtol=rtol, atol=1e-13, err_msg=name)


def test_public_api_of_the_model(model, batch):
    logits = model.forward(batch[0])
    assert logits.shape == (5, 9, 101) and logits.dtype == np.float64
    loss, grads = model.loss_and_grads(*batch)
    assert isinstance(loss, float)
    assert {n: g.shape for n, g in grads.items()} == {n: p.shape for n, p in model.params.items()}
    assert all(g.flags.c_contiguous for g in grads.values())


def test_the_loss_is_the_mean_over_counted_targets(model, batch):
    tokens, targets = batch
    logits = model.forward(tokens)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nats = [-log_p[b, t, targets[b, t]] for b, t in zip(*np.nonzero(targets != -100), strict=True)]
    assert model.loss_and_grads(tokens, targets)[0] == pytest.approx(np.mean(nats), rel=1e-12)
    assert model.loss(tokens, targets) == pytest.approx(np.mean(nats), rel=1e-12)


def test_the_head_runs_where_a_target_counts_and_changes_nothing(model, batch):
    """The same loss and gradients as from logits at every position, whose cross-entropy ignores most."""
    tokens, targets = batch
    rows = []

    def watched(x, weight):
        if weight is model.head:
            rows.append(x.size // x.shape[-1])
        return PLAIN.linear.forward(x, weight)

    model.ops = replace(model.ops, linear=PLAIN.linear._replace(forward=watched))
    loss, grads = model.loss_and_grads(tokens, targets)
    assert sum(rows) == np.count_nonzero(targets != -100) == 31
    assert model.loss(tokens, targets) == pytest.approx(loss, rel=1e-13) and sum(rows) == 62

    hidden = model.hidden_states(tokens)  # (B,T,D)
    logits, head = PLAIN.linear.forward(hidden, model.head)  # (B,T,V)
    expected, entropy = PLAIN.cross_entropy.forward(logits, targets)
    _, expected_grad = PLAIN.linear.backward(PLAIN.cross_entropy.backward(1.0, entropy), head)
    assert loss == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(grads["lm_head.weight"], expected_grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_all_targets_ignored_is_zero_everywhere(tiny_config, batch, threads):
    model = Llama.init(tiny_config("mha"), threads=threads)
    loss, grads = model.loss_and_grads(batch[0], np.full((5, 9), -100))
    assert loss == 0.0 and not any(grad.any() for grad in grads.values())


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_empty_batches(model, shape):
    nothing = np.zeros(shape, int)
    assert model.forward(nothing).shape == (*shape, 101)
    loss, grads = model.loss_and_grads(nothing, nothing)
    assert loss == 0.0 and not any(grad.any() for grad in grads.values())


def test_a_tied_model_has_one_matrix_with_both_gradients(tiny_config, batch):
    tied = Llama.init(tiny_config("gqa", tied=True), dtype=np.float64)
    loss, grads = tied.loss_and_grads(*batch)
    assert "lm_head.weight" not in tied.params and "lm_head.weight" not in grads
    params = {**tied.params, "lm_head.weight": tied.params["model.embed_tokens.weight"]}
    untied_loss, untied = Llama(tiny_config("gqa"), params).loss_and_grads(*batch)
    assert loss == pytest.approx(untied_loss, rel=1e-12)
    both = untied["model.embed_tokens.weight"] + untied["lm_head.weight"]
    np.testing.assert_allclose(grads["model.embed_tokens.weight"], both, atol=1e-14)


@pytest.mark.parametrize("options", [{"micro_batch": 1}, {"micro_batch": 2}, {"recompute": True}])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_neither_threads_nor_micro_batches_nor_recomputation_change_the_result(tiny_config, batch, threads, options):
    config = tiny_config("gqa", tied=True)
    whole = Llama.init(config, 1, np.float64, ops=PLAIN, threads=1).loss_and_grads(*batch, z_loss=0.1)
    parts = Llama.init(config, 1, np.float64, threads=threads).loss_and_grads(*batch, z_loss=0.1, **options)
    assert_same(parts, whole)


def test_the_same_threads_give_the_same_bits(tiny_config, batch):
    first, second = (Llama.init(tiny_config(), threads=2).loss_and_grads(*batch) for _ in range(2))
    assert first[0] == second[0]
    for name, grad in first[1].items():
        np.testing.assert_array_equal(second[1][name], grad)


def test_gradients_of_two_batches_add_up_to_those_of_both(model, batch):
    """Accumulation by hand: each half weighted by its part of the counted targets."""
    tokens, targets = batch
    counts = [np.count_nonzero(targets[rows] != -100) for rows in (slice(0, 2), slice(2, 5))]
    halves = [model.loss_and_grads(tokens[rows], targets[rows]) for rows in (slice(0, 2), slice(2, 5))]
    loss = sum(c * h[0] for c, h in zip(counts, halves, strict=True)) / sum(counts)
    grads = {n: sum(c * h[1][n] for c, h in zip(counts, halves, strict=True)) / sum(counts) for n in model.params}
    assert_same((loss, grads), model.loss_and_grads(tokens, targets))


def test_recomputation_takes_less_memory(tiny_config):
    config = tiny_config("mha", num_hidden_layers=8)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 101, (4, 64))
    model = Llama.init(config, threads=1)

    def peak(**options):
        tracemalloc.start()
        model.loss_and_grads(tokens, tokens, **options)
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    assert peak(recompute=True) < 0.5 * peak()


def test_padding_on_either_side_does_not_change_the_logits(model):
    rng = np.random.default_rng(3)
    text = rng.integers(0, 101, (1, 6))
    alone = model.forward(text)
    for left, right in ((0, 4), (4, 0), (2, 2)):
        padded = np.pad(text, ((0, 0), (left, right)), constant_values=7)
        present = np.pad(np.ones((1, 6), bool), ((0, 0), (left, right)))
        mask = causal_mask(10) & padding_mask(present)
        np.testing.assert_allclose(model.forward(padded, mask=mask)[:, left : left + 6], alone, atol=1e-12)


def test_packed_documents_equal_documents_alone(model):
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, 101, (1, 4)), rng.integers(0, 101, (1, 5))
    targets = rng.integers(0, 101, (1, 9))
    packed = np.concatenate([first, second], axis=1)
    mask = causal_mask(9) & document_mask(np.array([[0] * 4 + [1] * 5]))
    np.testing.assert_allclose(model.forward(packed, mask=mask)[:, 4:], model.forward(second), atol=1e-12)
    alone = [model.loss_and_grads(first, targets[:, :4]), model.loss_and_grads(second, targets[:, 4:])]
    grads = {n: (4 * alone[0][1][n] + 5 * alone[1][1][n]) / 9 for n in model.params}
    assert_same(model.loss_and_grads(packed, targets, mask=mask), ((4 * alone[0][0] + 5 * alone[1][0]) / 9, grads))


def test_causality(model):
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, 101, (2, 8))
    changed = tokens.copy()
    changed[:, 5:] = rng.integers(0, 101, (2, 3))
    np.testing.assert_array_equal(model.forward(tokens)[:, :5], model.forward(changed)[:, :5])


def test_an_optimizer_changes_the_model_in_place(model, batch):
    loss, grads = model.loss_and_grads(*batch)
    for name, param in model.params.items():
        param -= 0.1 * grads[name]
    assert model.loss(*batch) < loss


@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
@pytest.mark.parametrize("tied", [False, True])
def test_hf_and_pth_round_trips_are_bitwise(tmp_path, tiny_config, attention, tied):
    model = Llama.init(tiny_config(attention, tied=tied), seed=2)
    kinds = ["hf"]
    if pytest.importorskip("importlib.util").find_spec("torch"):
        kinds.append("pth")
    for kind in kinds:
        path = tmp_path / f"model.{kind}"
        model.save(path, kind)
        again = Llama.from_pretrained(path)
        assert again.config == model.config
        for name, param in model.params.items():
            np.testing.assert_array_equal(again.params[name], param)
        again.params["model.norm.weight"] += 1  # not a view of the file
    wide = Llama.from_pretrained(tmp_path / "model.hf", dtype=np.float64)
    assert wide.dtype == np.float64


def test_gguf_round_trip(tmp_path, tiny_config):
    from nano_llama.tokenizer import Tokenizer

    tokenizer = Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog"], 270)
    model = Llama.init(tiny_config("gqa", vocab_size=tokenizer.vocab_size), seed=2)
    model.save(tmp_path / "model.gguf", "gguf", tokenizer=tokenizer, dtype="F32")
    again = Llama.from_pretrained(tmp_path / "model.gguf")
    for name, param in model.params.items():
        np.testing.assert_array_equal(again.params[name], param)


@pytest.mark.parametrize("dtype", ["float16", "int64"])
def test_other_dtypes_are_refused(tiny_config, dtype):
    with pytest.raises(UserError, match=dtype):
        Llama.init(tiny_config(), dtype=dtype)


def test_wrong_input_is_refused_by_name(tmp_path, model):
    good = np.zeros((1, 3), int)
    for tokens, words in (
        (np.array([[0, 101]]), "101 is not a token"),
        (np.array([[-1, 0]]), "-1 is not a token"),
        (np.zeros(3, int), r"\(3,\)"),
        (np.zeros((1, 3)), "float64"),
    ):
        with pytest.raises(UserError, match=words):
            model.forward(tokens)
    with pytest.raises(UserError, match=r"targets.*\(1, 2\)"):
        model.loss_and_grads(good, np.zeros((1, 2), int))
    with pytest.raises(UserError, match="500"):
        model.loss_and_grads(good, np.full((1, 3), 500))
    with pytest.raises(UserError, match="'bin'"):
        model.save(tmp_path / "x", "bin")


def test_init_draws_the_weights_of_core_init(tiny_config):
    for name, param in init_params(tiny_config(), seed=5).items():
        np.testing.assert_array_equal(Llama.init(tiny_config(), seed=5).params[name], param)


def test_unknown_parameters_are_refused(tiny_config):
    config = tiny_config()
    params = Llama.init(config).params
    for changed, message in (
        ({**params, "model.norm.weight": np.ones(1, np.float32)}, r"model.norm.weight has shape \(1,\)"),
        ({name: p for name, p in params.items() if name != "model.norm.weight"}, "lacks model.norm.weight"),
        ({**params, "model.norm.weight": params["model.norm.weight"].astype(np.float16)}, "float16"),
        ({**params, "more": np.ones(1, np.float32)}, "extra more"),
    ):
        with pytest.raises(UserError, match=message):
            Llama(config, changed)
