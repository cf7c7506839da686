"""Volume 2's model by itself: dtypes, masks, positions, the cache. Parity with transformers: tests/parity/."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.errors import FormatError, UserError  # noqa: E402
from nano_llama.core.init import init_params  # noqa: E402
from nano_llama.vol2_torch import KVCache, Llama  # noqa: E402
from nano_llama.vol2_torch.model import MLP, Attention, to_tensor  # noqa: E402


def tokens(config, B=2, T=20, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, config.vocab_size, (B, T)))


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("tied", [False, True])
def test_init_is_cores_and_names_are_complete(tiny_config, tied):
    config = tiny_config(tied=tied)
    model = Llama.init(config, seed=5)
    expected = init_params(config, seed=5)
    assert list(model.named_params()) == list(expected)
    assert model.state_dict().keys() == expected.keys()
    for name, parameter in model.named_params().items():
        assert np.array_equal(parameter.detach().numpy(), expected[name]), name
    assert f"(norm): RMSNorm({config.hidden_size}, eps=" in repr(model)


def test_causality(tiny_config, no_grad):
    model = Llama.init(tiny_config())
    a = tokens(model.config)
    b = a.clone()
    b[:, 12:] = (b[:, 12:] + 1) % model.config.vocab_size
    torch.testing.assert_close(model(a)[:, :12], model(b)[:, :12], rtol=0, atol=1e-5)
    assert not torch.allclose(model(a)[:, 12:], model(b)[:, 12:])


@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
@pytest.mark.parametrize("cuts", [(1,) * 20, (7, 1, 12), (20,)])
def test_cached_logits_equal_uncached_ones(tiny_config, no_grad, attention, cuts):
    model = Llama.init(tiny_config(attention))
    text = tokens(model.config)
    cache = KVCache(model.config, 2, 20)
    parts = [model(part, cache=cache) for part in text.split(cuts, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(text), rtol=1e-4, atol=1e-4)
    assert cache.length == 20


def test_cache_truncates_keeps_rows_and_refuses_overflow(tiny_config, no_grad):
    model = Llama.init(tiny_config())
    text = tokens(model.config, B=3, T=10)
    cache = KVCache(model.config, 3, 10)
    model(text, cache=cache)
    with pytest.raises(UserError, match="holds 10 tokens and 11"):
        model(text[:, :1], cache=cache)
    cache.truncate(9)
    cache.keep_rows(torch.tensor([2, 0]))
    again = model(text[[2, 0], 9:], cache=cache)
    torch.testing.assert_close(again[:, 0], model(text)[[2, 0], 9], rtol=1e-4, atol=1e-4)


def test_a_dynamic_rope_refuses_a_cache(tiny_config):
    with pytest.raises(UserError, match="dynamic"):
        KVCache(tiny_config(rope="dynamic"), 1, 8)


def test_left_padding_with_mask_and_positions_equals_no_padding(tiny_config, no_grad):
    model = Llama.init(tiny_config())
    text = tokens(model.config, B=1, T=9)
    padded = torch.cat((torch.zeros(1, 4, dtype=text.dtype), text), 1)
    positions = (torch.arange(13) - 4).clamp(min=0)[None]
    seen = torch.arange(13) >= 4
    mask = (torch.ones(13, 13, dtype=torch.bool).tril() & seen) | torch.eye(13, dtype=torch.bool)
    logits = model(padded, positions=positions, mask=mask[None, None])
    torch.testing.assert_close(logits[:, 4:], model(text), rtol=1e-4, atol=1e-4)


def test_half_precision_stays_close(tiny_config, no_grad):
    config = tiny_config()
    text = tokens(config)
    exact = Llama.init(config, dtype=torch.float64)(text)
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 5e-2)):
        logits = Llama.init(config, dtype=dtype)(text)
        assert logits.dtype == dtype
        assert ((logits - exact).abs().max() / exact.abs().max()).item() < bound, dtype


def test_rope_tables_grow_with_the_sequence(tiny_config, no_grad):
    model = Llama.init(tiny_config())
    long = tokens(model.config, B=1, T=150)
    first = model(long)
    torch.testing.assert_close(Llama.init(model.config)(long), first)
    model(long[:, :5])
    torch.testing.assert_close(model(long), first)


def test_weights_of_another_model_are_refused_by_name(tiny_config):
    config = tiny_config()
    params = init_params(config)
    params.pop("model.norm.weight")
    with pytest.raises(FormatError, match=r"model\.norm\.weight"):
        Llama.init(config).load_params(params)


def test_bfloat16_arrays_become_tensors():
    import ml_dtypes

    array = np.array([1.0, -2.5, 3e38], ml_dtypes.bfloat16)
    assert to_tensor(array).dtype == torch.bfloat16
    assert to_tensor(array).float().tolist() == array.astype(np.float32).tolist()


def test_masks_and_positions_of_another_kind_are_refused(tiny_config):
    model, tokens = (
        Llama.init(tiny_config("mha", num_attention_heads=2, num_key_value_heads=2)),
        torch.zeros(2, 6).long(),
    )
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    for mask in (causal.long(), causal.float(), causal.expand(2, 6, 6), causal.expand(2, 2, 6, 6), causal[:, :5]):
        with pytest.raises(UserError, match="mask"):
            model(tokens, mask=mask)
    torch.testing.assert_close(model(tokens, mask=causal[None, None]), model(tokens))
    for positions in (torch.arange(5), torch.arange(-1, 5), torch.zeros(2, 1, 6).long()):
        with pytest.raises(UserError, match="positions"):
            model(tokens, positions=positions)


def test_modules_need_no_config(no_grad):
    x, (cos, sin) = torch.randn(2, 9, 64), (torch.randn(9, 8) for _ in range(2))
    torch.manual_seed(0)
    attention, mlp = Attention(64, num_attention_heads=4, num_key_value_heads=2, head_dim=16), MLP(64, 100)
    assert attention(x, cos, sin, None, None).shape == mlp(x).shape == x.shape
    q, k, v = (attention.heads(p(x)) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    scores = attention.rotate(q, k, cos, sin)
    k, v = (t.repeat_interleave(2, dim=1) for t in (scores[1], v))  # each pair of query heads reads one
    weights = (scores[0] @ k.mT / 4.0).masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf).softmax(-1)
    by_hand = attention.o_proj((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, cos, sin, None, None), by_hand, rtol=1e-4, atol=1e-5)
