"""The fast and lean ways of computing a gradient, each against the plain one in float32, tensor by tensor.

Compiled, in half precision, recomputed, accumulated, and together. Bounds: float32's ways differ by the order of sums;
bf16 rounds every factor to 2^-8 and fp16 to 2^-11, errors that add up over the layers.
"""

from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from nano_llama.core.lora import LoraConfig  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol2_torch.compiling import compiler_problem  # noqa: E402
from nano_llama.vol2_torch.finetune import apply_lora  # noqa: E402
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402

BOUNDS = {"fp32": 1e-4, "bf16": 0.08, "fp16": 0.01}
needs_compiler = pytest.mark.skipif(bool(compiler_problem(torch.device("cpu"))), reason="no compiler here")


def gradients(recipe, out, parts=1, **changes):
    """The gradient of one batch of 8 with ignored targets, in `parts`."""
    trainer = Trainer(recipe.replace(hidden_size=32, num_hidden_layers=2, **changes), out)
    tokens, targets = (array.copy() for array in next(trainer.batches))
    targets[0, 3:], targets[5] = -100, -100
    cuts = np.array_split(np.arange(8), parts)
    trainer.backend.gradient([(tokens[rows], targets[rows]) for rows in cuts])
    return {name: parameter.grad.clone() for name, parameter in trainer.backend.parameters.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"activation_checkpointing": "full"},
        {"activation_checkpointing": "selective"},
        {"parts": 3},
        {"activation_checkpointing": "selective", "precision": "bf16", "parts": 3},
        pytest.param({"compile": "on"}, marks=[needs_compiler, pytest.mark.slow]),  # torch.compile takes 10 to 30 s
        pytest.param(
            {"compile": "on", "precision": "bf16", "activation_checkpointing": "full"},
            marks=[needs_compiler, pytest.mark.slow],  # torch.compile again
        ),
        pytest.param(
            {"compile": "on", "precision": "bf16", "activation_checkpointing": "selective"}, marks=needs_compiler
        ),
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_mode_gives_the_plain_gradient(recipe, tmp_path, changes):
    plain = gradients(recipe, tmp_path / "plain")
    ours = gradients(recipe, tmp_path / "ours", **changes)
    bound = BOUNDS[changes.get("precision", "fp32")]
    for name in plain:
        error = (ours[name] - plain[name]).abs().max() / plain[name].abs().max()
        assert error <= bound, f"{name}: {error:.2g}"
    if "precision" in changes:
        assert any(not torch.equal(ours[name], plain[name]) for name in plain), "half precision rounds"


class Counting(TorchDispatchMode):
    """Counts matrix products and the SwiGLU's silu."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["full", "selective"])
def test_what_was_drawn_is_drawn_again(recipe, tmp_path, kind):
    plain = gradients(recipe, tmp_path / "plain", dropout=0.3)
    ours = gradients(recipe, tmp_path / "ours", dropout=0.3, activation_checkpointing=kind)
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_adapters_draw_too(tiny_config):
    for dropout in (0.0, 0.1):
        model = Llama.init(tiny_config())
        apply_lora(model, LoraConfig(dropout=dropout))
        model.train_with(0.0, "full")
        assert all(layer.draws == (dropout > 0) for layer in model.model.layers)


def test_what_is_computed_twice(recipe, tmp_path):
    counts = {}
    for kind in ("none", "selective", "full"):
        trainer = Trainer(recipe.replace(num_hidden_layers=3, activation_checkpointing=kind), tmp_path / kind)
        with Counting() as counting:
            trainer.backend.strategy.loss_sum(*next(trainer.batches)).backward()
        counts[kind] = counting.counts
    assert counts["full"]["mm"] > counts["selective"]["mm"] == counts["none"]["mm"]
    assert counts["full"]["silu"] == counts["selective"]["silu"] == 2 * counts["none"]["silu"] == 6


def test_a_layer_that_is_recomputed_keeps_only_its_input(recipe, tmp_path):
    kept = {}
    for kind in ("none", "full"):
        trainer, storages = (
            Trainer(recipe.replace(num_hidden_layers=4, activation_checkpointing=kind), tmp_path / kind),
            {},
        )

        def pack(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            nats = trainer.backend.strategy.loss_sum(*next(trainer.batches))
        kept[kind] = sum(storages.values())
        assert nats.requires_grad
    assert kept["full"] < kept["none"] / 4


def test_dropout_is_for_training_only_and_is_resumed_exactly(recipe, tmp_path):
    from nano_llama.formats import open_weights

    settings = recipe.replace(dropout=0.3, checkpoint_minutes=0.0)
    whole = Trainer(settings, tmp_path / "whole")
    batch = next(whole.batches)
    assert whole.backend.strategy.loss_sum(*batch).item() != whole.backend.strategy.loss_sum(*batch).item(), (
        "another mask each time"
    )
    assert whole.backend.eval_loss_sum(*batch) == whole.backend.eval_loss_sum(*batch)
    torch.manual_seed(0)
    Trainer(settings, tmp_path / "whole2").fit()

    class Stop(BaseException):
        pass

    halves = Trainer(settings, tmp_path / "halves")
    update = halves.backend.update

    def stop(lr):
        if halves.state.step == 5:
            raise Stop
        update(lr)

    halves.backend.update = stop
    with pytest.raises(Stop):
        halves.fit()
    torch.manual_seed(99)
    Trainer(settings, tmp_path / "halves", resume=True).fit()
    with open_weights(tmp_path / "whole2") as a, open_weights(tmp_path / "halves") as b:
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_dropout_acts_on_the_residual_update_and_keeps_the_mean(tiny_config):
    from nano_llama.vol2_torch import Llama

    block = Llama.init(tiny_config()).model.layers[0]
    block.dropout = 0.25
    x = torch.ones(100, 100)
    dropped = block.drop(x)
    assert dropped.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(block.eval().drop(x), x)
