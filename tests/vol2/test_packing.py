"""Documents packed into one window with a document mask: each as if it were alone."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.config import LlamaConfig  # noqa: E402
from nano_llama.vol2_torch.loss import loss_sum  # noqa: E402
from nano_llama.vol2_torch.model import Llama  # noqa: E402
from nano_llama.vol2_torch.packing import within_documents  # noqa: E402

LENGTHS = (5, 1, 9, 3)


@pytest.fixture
def model():
    config = LlamaConfig(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    return Llama.init(config, seed=3, dtype=torch.float64)


def test_mask_and_positions():
    positions, mask = within_documents(torch.tensor([[4, 4, 7, 7, 7]]))
    assert positions.tolist() == [[0, 1, 0, 1, 2]]
    assert mask.int().tolist() == [
        [[[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]]
    ]


def test_loss_and_gradient_are_those_of_the_documents_alone(model):
    rng = np.random.default_rng(0)
    texts = [torch.from_numpy(rng.integers(0, 31, length)) for length in LENGTHS]
    tokens = torch.cat(texts)[None]  # (1,T)
    documents = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))[None]  # (1,T)
    targets = torch.cat([torch.cat((text[1:], torch.tensor([-100]))) for text in texts])[None]  # (1,T)

    packed = loss_sum(model, tokens, targets, documents=documents)
    packed.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_params().items()}
    model.zero_grad()
    alone = sum(loss_sum(model, text[None, :-1], text[None, 1:]) for text in texts if len(text) > 1)
    alone.backward()
    assert abs(packed.item() - alone.item()) < 1e-6 * packed.item()  # logits become float32
    for name, parameter in model.named_params().items():
        error = (found[name] - parameter.grad).abs().max() / parameter.grad.abs().max().clamp_min(1e-12)
        assert error < 1e-6, name
    assert abs(loss_sum(model, tokens, targets).item() - packed.item()) > 1e-4, "across documents it is another loss"
