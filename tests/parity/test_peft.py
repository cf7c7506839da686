"""Adapters against PEFT, saved by either side: base and adapter give the same logits, and merged ones too.

In float64 PEFT is wrapped around Volume 2's own model (transformers' norm and RoPE compute in float32), in float32
around transformers'. PEFT is in the extra `judges`.
"""

import copy
import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from helpers.adapters import randomize  # noqa: E402
from helpers.stub_engine import PackedTexts  # noqa: E402
from helpers.vision_cases import IMAGE  # noqa: E402
from helpers.vision_models import picture, save_tiny  # noqa: E402
from nano_llama import LLM, SamplingParams  # noqa: E402
from nano_llama.cli import main  # noqa: E402
from nano_llama.core.errors import FormatError  # noqa: E402
from nano_llama.core.lora import LAYER_TARGETS, TARGETS  # noqa: E402
from nano_llama.core.vision import to_pixel_values  # noqa: E402
from nano_llama.formats import save_hf  # noqa: E402
from nano_llama.formats.peft import CONFIG, WEIGHTS  # noqa: E402
from nano_llama.formats.safetensors import SafetensorsFile  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol2_torch.finetune import (  # noqa: E402
    LoraConfig,
    adapter_params,
    apply_lora,
    load_adapter,
    merge_lora,
    save_adapter,
)
from nano_llama.vol3_engine.cpu.runner import CpuRunner  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*(tie_word_embeddings|save_embedding_layers|embedding layer).*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*"),
]
KINDS = {"lora": {}, "rslora": {"rslora": True}, "dora": {"dora": True}}
TEXT = torch.arange(60).reshape(2, 30)


def relative_error(a, b):
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item()


def hugging_face(model):
    """transformers' model with the same weights."""
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**model.config.to_hf_dict())).eval()
    theirs.load_state_dict(model.state_dict(), strict=False)
    return theirs


def logits_of(output):
    return getattr(output, "logits", output)


def base_for_peft(model, dtype):
    """The model that PEFT wraps: a copy of ours in float64, transformers' in float32."""
    return copy.deepcopy(model) if dtype == torch.float64 else hugging_face(model)


def pefts_config(lora):
    return peft.LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, use_rslora=lora.rslora, use_dora=lora.dora,
        target_modules=list(lora.target_modules), lora_dropout=lora.dropout,
    )  # fmt: skip


CASES = [
    (torch.float64, 1e-10, False, TARGETS),
    (torch.float64, 1e-10, True, LAYER_TARGETS),
    (torch.float32, 2e-5, False, TARGETS),
    (torch.float32, 2e-5, True, TARGETS),  # a tied head, adapted without its embedding
    (torch.float32, 2e-5, False, ("q_proj", "v_proj")),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "bound", "tied", "targets"), CASES)
def test_peft_reads_ours(tiny_config, tmp_path, kind, dtype, bound, tied, targets):
    lora = LoraConfig(
        r=3, alpha=5, dropout=0.1 if "lm_head" not in targets else 0, target_modules=targets, **KINDS[kind]
    )
    model = Llama.init(tiny_config(tied=tied), seed=1, dtype=dtype)
    base = base_for_peft(model, dtype)
    with torch.no_grad():
        unadapted = model(TEXT)
        randomize(adapter_params(apply_lora(model.eval(), lora)))
        save_adapter(model, tmp_path)
        config = peft.PeftConfig.from_pretrained(tmp_path)
        if dtype == torch.float64:
            config.task_type = None  # ours has no generate() for PEFT to wrap
        theirs = peft.PeftModel.from_pretrained(base, tmp_path, config=config, autocast_adapter_dtype=False).eval()
        expected = logits_of(theirs(TEXT))
        assert relative_error(unadapted, expected) > 0.1
        assert relative_error(model(TEXT), expected) < bound
        assert relative_error(merge_lora(model)(TEXT), expected) < bound


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "bound", "tied", "targets"), CASES)
def test_we_read_pefts(tiny_config, tmp_path, kind, dtype, bound, tied, targets):
    lora = LoraConfig(r=3, alpha=5, target_modules=targets, **KINDS[kind])
    model = Llama.init(tiny_config(tied=tied), seed=1, dtype=dtype)
    theirs = peft.get_peft_model(base_for_peft(model, dtype), pefts_config(lora)).to(dtype).eval()
    randomize({name: p for name, p in theirs.named_parameters() if "lora_" in name})
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        load_adapter(model, tmp_path).eval()
        assert relative_error(model(TEXT), logits_of(theirs(TEXT))) < bound


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_the_engine_serves_pefts(tiny_config, tmp_path, kind, tied):
    """Beside the base, on all matrices, in one batch with the base alone."""
    model = Llama.init(tiny_config(tied=tied), seed=1)
    save_hf(tmp_path / "base", model.config, {name: p.detach().numpy() for name, p in model.named_params().items()})
    lora = LoraConfig(r=3, alpha=5, target_modules=TARGETS, **KINDS[kind])
    theirs = peft.get_peft_model(hugging_face(model), pefts_config(lora)).eval()
    randomize({name: p for name, p in theirs.named_parameters() if "lora_" in name})
    theirs.save_pretrained(tmp_path / "adapter")
    runner = CpuRunner.load(tmp_path / "base", adapters={"theirs": tmp_path / "adapter"}, num_threads=2)
    texts = PackedTexts(runner, block_size=16)
    texts.adapters = {0: "theirs", 2: "theirs"}
    prompts = dict(enumerate([*TEXT.tolist(), TEXT[0, :5].tolist()]))
    for text, logits in texts.step(prompts).items():
        with torch.no_grad():
            expected = logits_of((theirs if text in texts.adapters else model)(torch.tensor([prompts[text]])))[0, -1]
        assert relative_error(torch.tensor(logits), expected) < 2e-5, text
    runner.close()


@pytest.mark.parametrize("kind", KINDS)
def test_keys_and_names_are_theirs(tiny_config, tmp_path, kind):
    """Every key that we write means the same there, and the files hold the same tensors."""
    lora = LoraConfig(r=3, alpha=5, target_modules=LAYER_TARGETS, **KINDS[kind])
    model = Llama.init(tiny_config(), seed=1)
    peft.get_peft_model(hugging_face(model), pefts_config(lora)).save_pretrained(tmp_path / "theirs")
    save_adapter(apply_lora(model, lora), tmp_path / "ours")
    ours, theirs = (SafetensorsFile(tmp_path / side / WEIGHTS) for side in ("ours", "theirs"))
    assert {name: ours.shape(name) for name in ours} == {name: theirs.shape(name) for name in theirs}
    ours, theirs = (json.loads((tmp_path / side / CONFIG).read_text()) for side in ("ours", "theirs"))
    for written in (ours, theirs):
        written["target_modules"] = sorted(written["target_modules"])
    for key in ours.keys() - {"task_type"}:  # it says how PEFT is to wrap the model; the test above does so itself
        assert ours[key] == theirs[key], key


def test_gradients_agree_in_float64(tiny_config, tmp_path):
    for kind in KINDS.values():
        lora = LoraConfig(r=3, alpha=5, target_modules=LAYER_TARGETS, **kind)
        model = Llama.init(tiny_config(), seed=1, dtype=torch.float64)
        theirs = peft.get_peft_model(copy.deepcopy(model), pefts_config(lora)).double()
        randomize({name: p for name, p in theirs.named_parameters() if "lora_" in name})
        theirs.save_pretrained(tmp_path)
        load_adapter(model, tmp_path)
        for logits in (model(TEXT), theirs(TEXT)):
            torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), TEXT[:, 1:].flatten()).backward()
        expected = {name.replace(".default", ""): p.grad for name, p in theirs.named_parameters() if p.requires_grad}
        found = {f"base_model.model.{name}": p.grad for name, p in adapter_params(model).items()}
        assert len(found) == len(expected)
        for name, grad in found.items():
            same = next(value for key, value in expected.items() if key.removesuffix(".weight") == name)
            assert relative_error(grad, same) < 1e-10, name


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_model_that_reads_images_the_llama_is_adapted(tmp_path, kind):
    """By PEFT around transformers' Idefics3, which a regular expression keeps off the encoder; read by the engine."""
    save_tiny(tmp_path / "base")
    theirs = transformers.Idefics3ForConditionalGeneration.from_pretrained(tmp_path / "base").eval()
    flags = {f"use_{name}": on for name, on in KINDS[kind].items()}
    lora = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=r".*text_model.*\.(q|v|down)_proj", init_lora_weights=False, **flags
    )
    adapted = peft.get_peft_model(theirs, lora).eval()
    randomize({name: p for name, p in adapted.named_parameters() if "lora_" in name})
    adapted.save_pretrained(tmp_path / "adapter")
    prompt = {"prompt": [1, IMAGE, 3, 4], "images": [picture(1)]}
    greedy = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, logprobs=0)
    with LLM(tmp_path / "base", adapter=tmp_path / "adapter", device="cpu", num_threads=1) as llm:
        (out,), (plain,) = llm.generate(prompt, greedy), llm.generate(prompt, greedy, adapter=None)
    ids = torch.tensor([[*out.prompt_token_ids, *out.token_ids]])
    with torch.no_grad():
        pixels = torch.from_numpy(to_pixel_values(picture(1)[None]))
        logits = adapted(input_ids=ids, pixel_values=pixels[None]).logits[0, len(out.prompt_token_ids) - 1 : -1]
    expected = logits.log_softmax(-1)[range(12), out.token_ids]
    logits[:, IMAGE] = -torch.inf  # never sampled
    assert out.token_ids == logits.argmax(-1).tolist() != plain.token_ids
    found = torch.tensor([next(iter(entry.values())).logprob for entry in out.outputs[0].logprobs])
    assert (found - expected).abs().max() < 1e-4

    assert main(["merge", "--adapter", f"{tmp_path}/adapter", "--out", f"{tmp_path}/merged", "--quiet"]) == 0
    merged = transformers.Idefics3ForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        again = merged(input_ids=ids, pixel_values=pixels[None]).logits[0, len(out.prompt_token_ids) - 1 : -1]
    assert (again.log_softmax(-1)[range(12), out.token_ids] - expected).abs().max() < 1e-4


def test_an_adapter_of_the_encoder_too_is_refused(tmp_path):
    save_tiny(tmp_path / "base")
    theirs = transformers.Idefics3ForConditionalGeneration.from_pretrained(tmp_path / "base")
    peft.get_peft_model(theirs, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(FormatError, match=r"does not use, base_model\.model\.model\.vision_model") as refusal:
        LLM(tmp_path / "base", adapter=tmp_path / "adapter", device="cpu")
    assert "target_modules=r'.*text_model" in refusal.value.hint
