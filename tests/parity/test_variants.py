"""Other activations, windows and places of norms: the volumes with each other, with transformers, and in the engine."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from nano_llama.core.config import LlamaConfig  # noqa: E402
from nano_llama.core.errors import ConfigError, UserError  # noqa: E402
from nano_llama.core.sampling import SamplingParams  # noqa: E402
from nano_llama.formats import open_model, save_gguf, save_hf  # noqa: E402
from nano_llama.verify.gradients import compare_gradients  # noqa: E402
from nano_llama.vol1_numpy import Llama as HandWritten  # noqa: E402
from nano_llama.vol1_numpy.generate import generate  # noqa: E402
from nano_llama.vol2_torch import KVCache, Llama  # noqa: E402
from nano_llama.vol3_engine.llm import LLM  # noqa: E402

VARIANTS = [
    {"hidden_act": "gelu_pytorch_tanh"},
    {"hidden_act": "relu"},
    {"hidden_act": "relu2", "sliding_window": 3},
    {"sliding_window": 5},
    {"norm_placement": "post"},
    {"hidden_act": "relu2", "sliding_window": 4, "norm_placement": "reordered"},
]
HELD = [changes for changes in VARIANTS if "norm_placement" not in changes]  # by an architecture of transformers
MODELS = {None: "llama", 3: "mistral", 5: "mistral"}  # by window


def named(changes):
    return ",".join(map(str, changes.values()))


@pytest.fixture
def folder(tiny_config, tmp_path):
    """folder(changes): a model in Hugging Face's format."""

    def make(changes):
        model = HandWritten.init(tiny_config(**changes), 3)
        save_hf(tmp_path / "model", model.config, model.params)
        return tmp_path / "model"

    return make


def text_of(config, B=2, T=40):
    return np.random.default_rng(0).integers(0, config.vocab_size, (B, T))


@pytest.mark.parametrize("changes", VARIANTS, ids=named)
def test_gradients_by_hand_equal_autograds(tiny_config, changes):
    config = tiny_config(**changes)
    tokens, targets = np.random.default_rng(1).integers(0, config.vocab_size, (2, 2, 13))
    report = compare_gradients(config, HandWritten.init(config, 1).params, tokens, targets)
    assert report.ok and report.tolerance == 1e-10, report.first_failure


@pytest.mark.parametrize("changes", VARIANTS, ids=named)
def test_volume_2_with_a_cache_or_documents_gives_volume_1s_logits(tiny_config, changes):
    config = tiny_config(**changes)
    by_hand, model = HandWritten.init(config, 2, np.float64), Llama.init(config, 2, dtype=torch.float64)
    tokens = text_of(config)
    cache = KVCache(config, 2, 40, dtype=torch.float64)
    with torch.no_grad():
        parts = [model(torch.tensor(tokens[:, part]), cache=cache) for part in (slice(0, 9), slice(9, 38))]
        parts += [model(torch.tensor(tokens[:, t : t + 1]), cache=cache) for t in (38, 39)]
        np.testing.assert_allclose(torch.cat(parts, dim=1).numpy(), by_hand.forward(tokens), rtol=1e-10, atol=1e-12)
        documents = torch.tensor([[0] * 11 + [1] * 29] * 2)
        packed = model.logits(model.hidden_states(torch.tensor(tokens), documents=documents)).numpy()
    np.testing.assert_allclose(packed[:, 11:], by_hand.forward(tokens[:, 11:]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("changes", HELD, ids=named)
def test_transformers_reads_what_is_saved_and_computes_the_same(folder, changes):
    path = folder(changes)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    assert theirs.config.model_type == MODELS[changes.get("sliding_window")]
    ours = Llama.from_pretrained(path)
    text = torch.tensor(text_of(ours.config))
    with torch.no_grad():
        expected, found = theirs(text).logits, ours(text)
    assert (found - expected).abs().max() / expected.abs().max() < 1e-5
    assert LlamaConfig.from_hf_dict(theirs.config.to_dict()) == ours.config


def test_reordered_norms_are_olmo_2s(tiny_config):
    """Its layer, without its norms of queries and keys."""
    model = Llama.init(tiny_config("mha", norm_placement="reordered", rms_norm_eps=1e-5), 4)
    c = model.config
    theirs = transformers.Olmo2ForCausalLM(
        transformers.Olmo2Config(
            vocab_size=c.vocab_size, hidden_size=c.hidden_size, intermediate_size=c.intermediate_size, pad_token_id=0,
            num_hidden_layers=c.num_hidden_layers, num_attention_heads=c.num_attention_heads,
            num_key_value_heads=c.num_key_value_heads, max_position_embeddings=64, rms_norm_eps=c.rms_norm_eps,
        )
    ).eval()  # fmt: skip
    for layer in theirs.model.layers:
        layer.self_attn.q_norm = layer.self_attn.k_norm = torch.nn.Identity()
    renamed = {
        name.replace("post_attention_layernorm", "post_feedforward_layernorm").replace(
            "input_layernorm", "post_attention_layernorm"
        ): tensor
        for name, tensor in model.state_dict().items()
    }
    theirs.load_state_dict(renamed)
    text = torch.tensor(text_of(c))
    with torch.no_grad():
        expected, found = theirs(text).logits, model(text)
    assert (found - expected).abs().max() / expected.abs().max() < 1e-5


def test_no_other_program_takes_a_norm_placement_for_llamas(folder):
    path = folder({"norm_placement": "post"})
    with pytest.raises(ValueError, match="nano-llama"):
        transformers.AutoConfig.from_pretrained(path)
    with open_model(path) as weights:
        assert weights.config.norm_placement == "post"
        raw = weights.config.to_hf_dict()
    with pytest.raises(ConfigError, match="norm_placement = 'post' changes the mathematics"):
        LlamaConfig.from_hf_dict(raw | {"model_type": "llama"})


@pytest.mark.parametrize("changes", VARIANTS, ids=named)
def test_gguf_refuses_before_it_writes(folder, tmp_path, changes):
    with open_model(folder(changes)) as weights, pytest.raises(UserError, match=next(iter(changes))):
        save_gguf(tmp_path / "model.gguf", weights.config, weights, None)
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize("changes", VARIANTS, ids=named)
def test_the_engine_gives_the_naive_tokens_or_refuses(folder, changes):
    path = folder(changes)
    model = HandWritten.from_pretrained(path)
    prompts = [[3, 4, 5], list(range(20)), [9]]
    params = SamplingParams(temperature=1.0, seed=1, max_tokens=24, ignore_eos=True)
    naive = [list(generate(model, prompt, params, use_cache=False)) for prompt in prompts]
    for runner, kind in (("numpy", "NumpyRunner"), ("torch", "TorchRunner"), ("auto", "TorchRunner")):
        with LLM(path, runner=runner, device="cpu", dtype="float32", max_num_batched_tokens=16) as llm:
            assert type(llm.engine.runner).__name__ == kind
            assert [out.token_ids for out in llm.generate(prompts, params)] == naive
    with pytest.raises(UserError, match=f"{next(iter(changes))} = .*the CPU runner"):
        LLM(path, runner="cpu")
