"""Adapters in LLM: every runner against Volume 2, by name in one batch, and what is refused."""

import asyncio
import json

import numpy as np
import pytest

from helpers.adapters import save_kinds
from helpers.stub_engine import PackedTexts, ScriptedRunner
from nano_llama import LLM, SamplingParams
from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.init import init_params
from nano_llama.core.names import EMBED, LM_HEAD
from nano_llama.formats import open_model, save_hf
from nano_llama.formats.safetensors import SafetensorsFile, save_safetensors
from nano_llama.vol3_engine.adapters import named_folders
from nano_llama.vol3_engine.async_engine import AsyncEngine

torch = pytest.importorskip("torch")

from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol2_torch.finetune import load_adapter  # noqa: E402

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
PROMPTS = [[5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9], [11], [i * i % 97 for i in range(40)], [3, 1, 4], [1, 5]]
CHOSEN = ["lora", "dora", None, "rslora", "dora", "lora"]


@pytest.fixture(scope="module", params=["mha, tied", "gqa"])
def saved(request, tmp_path_factory, tiny_config):
    """A model's folder, its adapters' folders, and Volume 2's models: adapter or None -> model."""
    folder = tmp_path_factory.mktemp("models")
    config = tiny_config(request.param[:3], tied="tied" in request.param)
    weights = init_params(config, 1)
    save_hf(folder / "base", config, weights)
    adapters = save_kinds(folder, config, weights)
    models = {None: Llama.from_pretrained(folder / "base").eval()}
    for name, adapter in adapters.items():
        models[name] = load_adapter(Llama.from_pretrained(folder / "base"), adapter).eval()
    return folder / "base", adapters, models


def load_runner(name):
    if name == "cpu":
        from nano_llama.vol3_engine.cpu.runner import CpuRunner as Runner
    elif name == "numpy":
        from nano_llama.vol3_engine.runner.numpy import NumpyRunner as Runner
    else:
        from nano_llama.vol3_engine.runner.torch import TorchRunner as Runner
    return Runner.load


@pytest.mark.parametrize("runner", ["cpu", "numpy", "torch"])
def test_logits_of_a_mixed_batch_equal_volume_2(saved, runner):
    path, adapters, models = saved
    texts = PackedTexts(load_runner(runner)(path, num_threads=1, adapters=adapters), num_blocks=40, block_size=16)
    texts.adapters = dict(enumerate(CHOSEN))
    contexts = [list(prompt) for prompt in PROMPTS]
    found = texts.step(dict(enumerate(PROMPTS)))
    for step in range(3):
        for text, context in enumerate(contexts):
            with torch.no_grad():
                meant = models[CHOSEN[text]](torch.tensor([context]))[0, -1].numpy()
            error = np.abs(found[text] - meant).max() / np.abs(meant).max()
            assert error < 2e-5, f"{CHOSEN[text]}, text {text} after {step} steps: {error:.1e}"
            context.append(10 * step + text)
        found = texts.step({text: context[-1:] for text, context in enumerate(contexts)})
    texts.runner.close()


@pytest.fixture(scope="module")
def llm(saved):
    with LLM(saved[0], adapter=saved[1], device="cpu", num_threads=2) as llm:
        yield llm


def greedy(model, prompt):
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(GREEDY.max_tokens):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_one_adapter_for_each_prompt_of_a_batch(saved, llm):
    outputs = llm.generate(PROMPTS, GREEDY, adapter=CHOSEN)
    for prompt, name, out in zip(PROMPTS, CHOSEN, outputs, strict=True):
        assert out.token_ids == greedy(saved[2][name], prompt), name
        assert out.token_ids == llm.generate([prompt], GREEDY, adapter=name)[0].token_ids, "alone"


def test_one_adapter_for_all_and_none_for_those_that_do_not_choose(saved, llm):
    models = saved[2]
    for choice, name in (({"adapter": "dora"}, "dora"), ({"adapter": None}, None), ({}, None)):
        for prompt, out in zip(PROMPTS[:2], llm.generate(PROMPTS[:2], GREEDY, **choice), strict=True):
            assert out.token_ids == greedy(models[name], prompt)
    pieces = list(llm.stream(PROMPTS[0], GREEDY, adapter="lora"))
    assert pieces[-1].output.token_ids == greedy(models["lora"], PROMPTS[0])


def test_a_single_adapter_is_every_requests_until_it_says_otherwise(saved):
    path, adapters, models = saved
    with LLM(path, adapter=str(adapters["dora"]), device="cpu", num_threads=1) as llm:
        assert llm.adapters == ("dora",)
        assert llm.generate([PROMPTS[0]], GREEDY)[0].token_ids == greedy(models["dora"], PROMPTS[0])
        assert llm.generate([PROMPTS[0]], GREEDY, adapter=None)[0].token_ids == greedy(models[None], PROMPTS[0])


def test_cached_blocks_are_never_shared_between_adapters(saved):
    path, adapters, models = saved
    prompt = PROMPTS[3]  # two whole blocks
    with LLM(path, adapter=adapters, device="cpu", num_threads=1) as llm:
        for name, cached in (("lora", 0), ("dora", 0), (None, 0), ("dora", 32), ("lora", 32), (None, 32)):
            (out,) = llm.generate([prompt], GREEDY, adapter=name)
            assert out.num_cached_tokens == cached, name
            assert out.token_ids == greedy(models[name], prompt), name
        outputs = llm.generate([prompt] * 3, GREEDY, adapter=["rslora", "rslora", "lora"])  # in one step
        assert [out.num_cached_tokens for out in outputs] == [0, 32, 32]
        assert outputs[0].token_ids == outputs[1].token_ids == greedy(models["rslora"], prompt)


def test_tasks_choose_by_name_and_the_trace_tells(saved, tmp_path):
    path, adapters, models = saved

    async def ask(llm):
        async with AsyncEngine(llm) as engine:
            requests = [await engine.prepare(PROMPTS[0], GREEDY, adapter=name) for name in ("lora", None)]
            assert [request.adapter for request in requests] == ["lora", None]
            async with engine.submit(requests) as stream:
                async for _ in stream:
                    pass
            return [llm.output_of(request) for request in requests] + [
                await engine.generate(PROMPTS[0], GREEDY, adapter="dora")
            ]

    trace = tmp_path / "trace"
    outputs = asyncio.run(ask(LLM(path, adapter=adapters, device="cpu", num_threads=1, trace=trace)))
    names = ["lora", None, "dora"]
    assert [out.token_ids for out in outputs] == [greedy(models[name], PROMPTS[0]) for name in names]
    events = map(json.loads, trace.read_text().splitlines())
    assert [event["adapter"] for event in events if event["event"] == "arrived"] == names


# -- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["poet", "", 3])
def test_an_adapter_that_is_not_loaded(llm, name):
    with pytest.raises(UserError, match="is not the name of an adapter that is loaded") as refusal:
        llm.generate([PROMPTS[0]], GREEDY, adapter=name)
    assert "lora, rslora, dora" in str(refusal.value.hint)


def test_as_many_adapters_as_prompts(llm):
    with pytest.raises(UserError, match="2 prompts came with 3 adapters"):
        llm.generate(PROMPTS[:2], GREEDY, adapter=["lora"] * 3)


def test_without_adapters_none_can_be_chosen():
    llm = LLM.from_runner(ScriptedRunner({"a": "b"}), None)
    assert llm.adapters == ()
    with pytest.raises(UserError, match="'lora' is not the name") as refusal:
        llm.request([1], GREEDY, adapter="lora")
    assert "None are loaded" in str(refusal.value.hint)


def test_a_model_in_memory_takes_none(tiny_config):
    with pytest.raises(UserError, match="adapter='folder' does not apply"):
        LLM.from_model(Llama.init(tiny_config()), None, adapter="folder")


@pytest.mark.parametrize("given", [7, {"a": 3}, {"": "folder"}, ["folder"], {3: "folder"}])
def test_an_adapter_is_a_folder_or_folders_by_name(given):
    with pytest.raises(UserError, match="must be a folder, or a mapping of names to folders"):
        named_folders(given)


def test_an_adapter_of_another_model(saved, tmp_path, tiny_config):
    wide = tiny_config(hidden_size=96)
    other = save_kinds(tmp_path, wide, init_params(wide))
    with pytest.raises(FormatError, match="has shape"):
        LLM(saved[0], adapter=other["lora"], device="cpu")
    with pytest.raises(UserError, match=r"No adapter at .*nowhere"):
        LLM(saved[0], adapter=tmp_path / "nowhere", device="cpu")


@pytest.mark.parametrize("runner", ["cpu", "numpy", "torch"])
def test_an_adapter_of_a_model_with_another_head(saved, tmp_path, runner):
    """PEFT repeats the head where it is adapted: it tells whose adapter it is."""
    path, adapters, _ = saved
    tensors = dict(SafetensorsFile(adapters["lora"] / "adapter_model.safetensors"))
    with open_model(path) as weights:
        head = np.array(weights[EMBED if weights.config.tie_word_embeddings else LM_HEAD])
    for wrong in (0, 1):
        head[3, 4] += wrong
        folder = tmp_path / str(wrong)
        folder.mkdir()
        (folder / "adapter_config.json").write_text((adapters["lora"] / "adapter_config.json").read_text())
        save_safetensors(
            folder / "adapter_model.safetensors", {**tensors, "base_model.model.lm_head.base_layer.weight": head}
        )
        if wrong:
            with pytest.raises(FormatError, match=r"lm_head\.base_layer\.weight is not this model's head"):
                LLM(path, adapter=folder, runner=runner, device="cpu")
        else:
            LLM(path, adapter=folder, runner=runner, device="cpu").close()
