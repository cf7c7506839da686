"""Weights that change under an engine: it answers as a new one would, and keeps its cache while they stay."""

import numpy as np
import pytest

from helpers.stub_engine import ByteTokenizer, small_config
from nano_llama import LLM, SamplingParams
from nano_llama.core.lora import LoraConfig
from nano_llama.vol1_numpy import Llama as NumpyLlama
from nano_llama.vol1_numpy.finetune import apply_lora as vol1_lora
from nano_llama.vol3_engine.trace import NoTrace

PROMPT = "In the morning the old man went down to the river, and there he sat upon a stone."
PARAMS = SamplingParams(max_tokens=6, temperature=0.0, logprobs=0)


def answers(llm, prompt=PROMPT):
    output = llm.generate(prompt, PARAMS)[0].outputs[0]
    return [
        (token, round(step[token].logprob, 5)) for token, step in zip(output.token_ids, output.logprobs, strict=True)
    ]


def numpy_model():
    return NumpyLlama.init(small_config(), seed=1)


def torch_model():
    torch = pytest.importorskip("torch")
    from nano_llama.vol2_torch import Llama

    torch.set_num_threads(1)
    return Llama.init(small_config(), seed=1)


def in_place(model):
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)


def by_an_optimizer(model):
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optimizer.step()


def past_the_count(model):
    for parameter in model.parameters():
        parameter.data.mul_(1.3)


def through_numpy(model):
    model.model.layers[0].self_attn.k_proj.weight.detach().numpy()[3, 5] += 1.0  # a single value


def rows_exchanged(model):
    weight = model.model.layers[0].mlp.up_proj.weight.data
    weight.copy_(weight.flip(0))


def loaded(model):
    model.load_state_dict({name: value * 1.3 for name, value in model.state_dict().items()})


def replaced(model):
    import torch

    layer = model.model.layers[1].self_attn.v_proj
    layer.weight = torch.nn.Parameter(layer.weight.detach() * 1.3)


def another_dtype(model):
    import torch

    model.to(torch.bfloat16)


@pytest.mark.parametrize(
    "change",
    [in_place, by_an_optimizer, past_the_count, through_numpy, rows_exchanged, loaded, replaced, another_dtype],
)
def test_a_torch_model_that_changed_between_two_requests(change):
    model = torch_model()
    llm = LLM.from_model(model, ByteTokenizer(), prefix_caching=True)
    before = answers(llm)
    change(model)
    after = answers(llm)
    assert after == answers(LLM.from_model(model, ByteTokenizer())) != before


def numpy_in_place(model):
    for array in model.params.values():
        array *= 1.3


def numpy_single_value(model):
    model.params["model.layers.0.self_attn.k_proj.weight"][3, 5] += 1.0


def numpy_replaced(model):
    for name, array in list(model.params.items()):
        model.params[name] = array * np.float32(1.3)


@pytest.mark.parametrize("change", [numpy_in_place, numpy_single_value, numpy_replaced])
def test_a_numpy_model_that_changed_between_two_requests(change):
    model = numpy_model()
    llm = LLM.from_model(model, ByteTokenizer())
    before = answers(llm)
    change(model)
    assert answers(llm) == answers(LLM.from_model(model, ByteTokenizer())) != before


@pytest.mark.parametrize("volume", ["vol1_numpy", "vol2_torch"])
def test_an_adapter_in_training_that_changed(volume):
    """Of the model that the engine was given only the adapter changes, its weights are frozen."""
    if volume == "vol1_numpy":
        model = vol1_lora(numpy_model(), LoraConfig(r=2))
        adapter = model.trainable
    else:
        model = torch_model()
        from nano_llama.vol2_torch.finetune import adapter_params, apply_lora

        adapter = {name: p.detach() for name, p in adapter_params(apply_lora(model, LoraConfig(r=2))).items()}
    llm = LLM.from_model(model, ByteTokenizer())
    before = answers(llm)
    for tensor in adapter.values():
        tensor[:] = 0.1
    assert answers(llm) == answers(LLM.from_model(model, ByteTokenizer())) != before


@pytest.mark.parametrize(("make", "change"), [(torch_model, in_place), (numpy_model, numpy_in_place)])
def test_weights_that_change_amid_an_answer(make, change):
    """The rest of the answer is what the new weights say of all that stands before it."""
    model = make()
    llm = LLM.from_model(model, ByteTokenizer())
    stream = llm.stream(PROMPT, PARAMS)
    first = [next(stream).token_id for _ in range(3)]
    change(model)
    rest = [piece.token_id for piece in stream]
    known = [*PROMPT.encode(), *first]
    assert rest == [token for token, _ in answers(LLM.from_model(model, ByteTokenizer()), known)][: len(rest)]


@pytest.mark.parametrize("make", [torch_model, numpy_model])
def test_the_cache_is_kept_while_the_weights_stay(make, monkeypatch):
    model = make()
    llm = LLM.from_model(model, ByteTokenizer())
    hits = []
    trace = NoTrace()
    monkeypatch.setattr(trace, "stepped", lambda step, scheduler: hits.append(dict(step.prefix_hits)))
    llm.engine.subscribe(trace)
    first = answers(llm)
    assert not any(hits)
    assert answers(llm) == first and any(hits), "the second time the prompt is found"
    hits.clear()
    llm.reset_prefix_cache()
    assert answers(llm) == first and not any(hits)
