"""Volume 2's own generation against generation without a cache and against Volume 1, on the same weights."""

import numpy as np
import pytest
import torch

from nano_llama.core.init import init_params
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol1_numpy import Llama as NumpyLlama
from nano_llama.vol1_numpy.generate import generate as numpy_generate
from nano_llama.vol2_torch import Llama
from nano_llama.vol2_torch.compiling import compile_layers
from nano_llama.vol2_torch.generate import generate

PARAMS = SamplingParams(temperature=0.8, max_tokens=20, seed=3)


@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 1}, {"eos_token_id": 5}])
def test_equals_uncached_generation_and_volume_1(tiny_config, changes):
    config = tiny_config(**changes)
    params = init_params(config, seed=1)
    model = Llama(config).load_params(params)
    tokens = list(generate(model, [1, 2, 3], PARAMS))
    assert tokens == list(generate(model, [1, 2, 3], PARAMS, use_cache=False))
    assert tokens == list(numpy_generate(NumpyLlama(config, params), [1, 2, 3], PARAMS))
    longer = PARAMS.replace(min_tokens=15, stop_token_ids=tokens)
    tokens = list(generate(model, [1, 2, 3], longer))
    assert len(tokens) > 15 and not {*tokens[:15]} & {*(longer.stop_token_ids or ())}
    assert tokens == list(numpy_generate(NumpyLlama(config, params), [1, 2, 3], longer))


def test_generation_ends_at_the_context_limit(tiny_config):
    model = Llama.init(tiny_config(max_position_embeddings=8))
    assert len(list(generate(model, [1, 2, 3], PARAMS))) == 5
    assert list(generate(model, [1] * 8, PARAMS)) == []


def test_nothing_is_compiled_and_no_generator_is_touched(tiny_config):
    model = Llama.init(tiny_config())
    plain = list(generate(model, [1, 2, 3], PARAMS))
    model.train_with(dropout=0.5, activation_checkpointing="none")
    compile_layers(model)
    before = torch.get_rng_state().numpy()
    torch._dynamo.reset()
    with torch.compiler.set_stance("fail_on_recompile"):
        assert list(generate(model, [1, 2, 3], PARAMS)) == plain
    assert np.array_equal(before, torch.get_rng_state().numpy())
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
