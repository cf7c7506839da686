"""Examples packed into rows, padded, and each alone: the same loss and gradients, in Volume 1 and Volume 2."""

import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.sft.batches import ExampleBatches
from nano_llama.data.sft.sequences import TokenSequence
from nano_llama.vol1_numpy import Llama
from nano_llama.vol1_numpy.masks import causal_mask, document_mask

torch = pytest.importorskip("torch")

from nano_llama.vol2_torch import Llama as TorchLlama  # noqa: E402
from nano_llama.vol2_torch.loss import loss_sum  # noqa: E402

CONFIG = LlamaConfig(
    vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
)  # fmt: skip
LENGTHS, CONTEXT = (5, 1, 19, 3, 23, 11), 24


@pytest.fixture(scope="module")
def sequences() -> list[TokenSequence]:
    """With learned ids in the middle and at the end of each, as answers are."""
    rng = np.random.default_rng(1)
    made = []
    for length in LENGTHS:
        learned = np.arange(length + 1) * 3 // (length + 1) != 1
        learned[0], learned[-1] = False, True
        made.append(TokenSequence(f"{length}", rng.integers(0, 31, length + 1).astype(np.int32), learned))
    return made


def numpy_gradients(batch):
    mask = causal_mask(batch[0].shape[1])
    if len(batch) == 3:
        mask = mask & document_mask(batch[2])
    return Llama.init(CONFIG, seed=3, dtype=np.float64).loss_and_grads(batch[0], batch[1], mask=mask)


def torch_gradients(batch):
    """Nats and gradients over the counted targets."""
    model = TorchLlama.init(CONFIG, seed=3, dtype=torch.float64)
    tokens, targets, *documents = (torch.from_numpy(array) for array in batch)
    count = int((targets != IGNORE_INDEX).sum())
    loss = loss_sum(model, tokens, targets, documents=documents[0] if documents else None) / count
    loss.backward()
    return loss.item(), {name: param.grad.numpy() for name, param in model.named_params().items()}


def alone(sequences, gradients):
    """The mean over all counted targets of what each sequence gives by itself, without padding and without a mask."""
    total, sums, counted = 0.0, {}, 0
    for sequence in sequences:
        targets = np.where(sequence.learned[1:], sequence.ids[1:], IGNORE_INDEX).astype(np.int64)[None]
        count = int((targets != IGNORE_INDEX).sum())
        loss, grads = gradients((sequence.ids[None, :-1].astype(np.int64), targets))
        total, counted = total + loss * count, counted + count
        sums = {name: sums.get(name, 0.0) + grad * count for name, grad in grads.items()}
    return total / counted, {name: grad / counted for name, grad in sums.items()}


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("gradients", [numpy_gradients, torch_gradients], ids=["volume 1", "volume 2"])
def test_loss_and_gradients_are_those_of_each_alone(sequences, gradients, packed):
    batches = ExampleBatches(sequences, batch_size=9, context=CONTEXT, packed=packed)
    (batch,) = batches.in_order()
    assert len(batch[0]) == len(batches.rows) and (len(batches.rows) < len(LENGTHS)) == packed
    loss, grads = gradients(batch)
    expected_loss, expected = alone(sequences, gradients)
    assert abs(loss - expected_loss) < 1e-6 * expected_loss
    for name, grad in expected.items():
        error = np.abs(grads[name] - grad).max() / max(np.abs(grad).max(), 1e-12)
        assert error < 1e-6, f"{name}: {error}"


def test_without_the_mask_packed_examples_see_each_other(sequences):
    """The test above could fail."""
    (batch,) = ExampleBatches(sequences, batch_size=9, context=CONTEXT).in_order()
    for gradients in (numpy_gradients, torch_gradients):
        assert abs(gradients(batch[:2])[0] - gradients(batch)[0]) > 1e-4
