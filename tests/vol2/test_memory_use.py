"""What autograd keeps for the backward pass is what the preflight predicts, byte for byte but for small vectors."""

import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.config import LlamaConfig  # noqa: E402
from nano_llama.core.training.preflight import activation_bytes_per_token  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol2_torch.peak import measured_peak  # noqa: E402
from nano_llama.vol2_torch.precision import Precision  # noqa: E402

B, T = 4, 32


def kept_bytes(config, precision, recompute):
    """Of all tensors saved by the hidden states' graph, the weights and their rounded copies left out."""
    model, kept = Llama.init(config), {}
    model.train_with(dropout=0.0, recompute=recompute)
    shapes = {tuple(parameter.shape) for parameter in model.parameters()}
    shapes |= {shape[::-1] for shape in shapes}

    def pack(tensor):
        if tuple(tensor.shape) not in shapes:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = torch.zeros(B, T, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), Precision(precision, "cpu").autocast():
        hidden = model.hidden_states(tokens)
    assert hidden.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("precision, narrow", [("fp32", 4), ("bf16", 2)])
@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("G", [4, 2])
def test_activations_are_as_predicted(precision, narrow, recompute, G):
    shape = {
        "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": G, "intermediate_size": 176,
        "vocab_size": 50, "max_position_embeddings": T,
    }  # fmt: skip
    few, many = LlamaConfig(num_hidden_layers=2, **shape), LlamaConfig(num_hidden_layers=6, **shape)
    kept = [kept_bytes(config, precision, recompute) for config in (few, many)]
    predicted = [B * T * activation_bytes_per_token(config, recompute, narrow) for config in (few, many)]
    assert kept[1] - kept[0] == pytest.approx(predicted[1] - predicted[0], rel=0.03)


def test_a_peak_is_measured():
    assert 1e8 < measured_peak(torch.device("cpu"), torch.float32) < 1e15
