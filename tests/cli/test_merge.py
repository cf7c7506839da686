"""`merge`: the model it writes computes what base and adapter do, keeps the tokenizer, and says what rounding cost."""

import json
import shutil

import numpy as np
import pytest

from helpers.adapters import random_adapter
from helpers.vision_cases import case, tiny_vision_language_config
from nano_llama.core.lora import LAYER_TARGETS, TARGETS, LoraConfig
from nano_llama.core.vision.names import text_name, vision_shapes
from nano_llama.formats import detect, open_weights
from nano_llama.formats.dtypes import DTYPES
from nano_llama.formats.gguf_quants import quantize
from nano_llama.formats.merged import open_merged
from nano_llama.formats.peft import save_adapter_files
from nano_llama.formats.vision_folder import open_language_model, open_vision_language
from nano_llama.tokenizer import Tokenizer
from nano_llama.vol1_numpy import Llama
from nano_llama.vol1_numpy.vision import VisionLanguageModel

TEXT = np.arange(40).reshape(2, 20)


def relative_error(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.fixture(scope="module")
def base(make_tiny, tmp_path_factory):
    """Rows that are whole blocks, so that it can be quantized; a chat template; more ids that end a text."""
    folder = make_tiny(tmp_path_factory.mktemp("m") / "base", chat=True, hidden_size=64, intermediate_size=96)
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 7], "temperature": 0.6}')
    return folder


@pytest.fixture
def adapter(base, tmp_path):
    return save_adapter(tmp_path / "adapter", base, LoraConfig(r=3, alpha=5))


def save_adapter(folder, base, lora, scale=1.0, **names):
    with open_weights(base) as weights:
        tensors = random_adapter(lora, weights.config, weights)
    tensors = {name: array * scale if name.endswith("lora_B") else array for name, array in tensors.items()}
    save_adapter_files(folder, lora, tensors, **{"base_model": str(base), **names})
    return folder


@pytest.mark.parametrize("kind", [{}, {"rslora": True}, {"dora": True}, {"target_modules": TARGETS}])
def test_merged_equals_unmerged(cli, base, tmp_path, kind):
    """In every program that reads the folder; --model is what the adapter names."""
    adapter = save_adapter(tmp_path / "adapter", base, LoraConfig(r=3, alpha=5, **kind))
    done = cli("merge", "--adapter", adapter, "--out", tmp_path / "out", "--json", "--quiet")
    assert done.code == 0, done.shown
    assert done.err == "" and done.json["matrices"] == (8 if "target_modules" in kind else 7)
    assert done.json["rounding"]["relative"] == 0
    expected = Llama.from_pretrained(base, adapter=adapter).forward(TEXT)
    found = Llama.from_pretrained(tmp_path / "out").forward(TEXT)
    assert relative_error(found, expected) == 0
    assert relative_error(Llama.from_pretrained(base).forward(TEXT), expected) > 0.1


def test_tokenizer_template_and_end_ids_are_kept(cli, base, adapter, tmp_path):
    assert cli("merge", "--model", base, "--adapter", adapter, "--out", tmp_path / "out").code == 0
    before, after = Tokenizer.from_pretrained(base), Tokenizer.from_pretrained(tmp_path / "out")
    assert after.chat_templates == before.chat_templates != {}
    assert after.encode("the quick brown") == before.encode("the quick brown")
    assert after.stop_ids == before.stop_ids >= {0, 7}
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [0, 7] and generation["temperature"] == 0.6


def test_a_tokenizer_beside_the_adapter_is_the_one_it_was_trained_with(cli, base, adapter, tmp_path):
    shutil.copy(base / "tokenizer.json", adapter)
    (adapter / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    assert cli("merge", "--model", base, "--adapter", adapter, "--out", tmp_path / "out").code == 0
    assert Tokenizer.from_pretrained(tmp_path / "out").chat_template == "{{ messages[0].content }}!"


def test_bfloat16_rounds_the_sum_once_and_says_what_that_cost(cli, base, tmp_path):
    """A strong adapter survives rounding; of one that moves weights by less than bfloat16's steps little is left."""
    lost = {}
    for scale in (1, 1e-4):
        adapter, out = tmp_path / f"adapter{scale}", tmp_path / f"out{scale}"
        save_adapter(adapter, base, LoraConfig(r=3, alpha=5), scale)
        done = cli("merge", "--adapter", adapter, "--out", out, "--dtype", "bfloat16", "--json")
        assert done.code == 0, done.shown
        with open_weights(out) as written, open_merged(base, adapter) as merged, open_weights(base) as before:
            for name in merged:
                np.testing.assert_array_equal(written[name], merged[name].astype(DTYPES["BF16"]), err_msg=name)
            error, change = (
                sum(np.sum((a[name].astype(float) - merged[name]) ** 2) for name in merged.adapted)
                for a in (written, before)
            )
        lost[scale] = done.json["rounding"]
        assert lost[scale]["relative"] == pytest.approx((error / change) ** 0.5, rel=1e-3)
        assert lost[scale]["worst"] >= lost[scale]["relative"] and lost[scale]["worst_name"].endswith("_proj.weight")
        assert ("Rounding moved the weights" in done.err) == (scale < 1)
    assert lost[1]["relative"] < 0.01 and lost[1e-4]["relative"] > 1
    shown = cli("merge", "--adapter", tmp_path / "adapter1", "--out", tmp_path / "again", "--dtype", "bfloat16").out
    assert "of what the adapter changed" in shown and lost[1]["worst_name"] in shown


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "q8_0"])
def test_out_to_gguf(cli, base, adapter, tmp_path, dtype):
    out = tmp_path / "out.gguf"
    done = cli("merge", "--adapter", adapter, "--out", out, "--dtype", dtype)
    assert done.code == 0, done.shown
    assert detect(out) == "gguf" and Tokenizer.from_pretrained(out).chat_template is not None
    kind = {"auto": "F32", "float32": "F32", "bfloat16": "BF16", "q8_0": "Q8_0"}[dtype]
    with open_weights(out) as written, open_merged(base, adapter) as merged:
        for name in merged.adapted:
            assert written.dtype_name(name) == kind
            step = {"F32": 0, "BF16": 2**-8, "Q8_0": 2**-7}[kind] * np.abs(merged[name]).max()
            assert np.abs(written[name].astype(np.float32) - merged[name]).max() <= step, name


@pytest.mark.parametrize("to", ["int8", "int4"])
def test_a_quantized_base_is_merged_in_float32_and_quantized_again_by_name(cli, base, tmp_path, to):
    """Each step as the command names the next."""
    quantized, out = tmp_path / "q", tmp_path / "out-1.5"  # a name with a dot
    assert cli("quantize", "--model", base, "--to", to, "--out", quantized).code == 0
    adapter = save_adapter(tmp_path / "adapter", quantized, LoraConfig(r=3, alpha=5))
    done = cli("merge", "--adapter", adapter, "--out", out)
    assert done.code == 0, done.shown
    expected = Llama.from_pretrained(quantized, adapter=adapter).forward(TEXT)
    assert relative_error(Llama.from_pretrained(out).forward(TEXT), expected) == 0
    command = f"nano-llama quantize --model {out} --to {to} --out {out}-{to}"
    assert f"  {command}\n" in done.err
    assert cli(*command.split()[1:]).code == 0
    kind = {"int8": "Q8_0", "int4": "Q4_1"}[to]
    with open_weights(tmp_path / f"out-1.5-{to}") as again, open_merged(quantized, adapter) as merged:
        for name in merged.adapted:
            np.testing.assert_array_equal(again.raw(name).blocks, quantize(kind, merged[name]), err_msg=name)
    arguments = ("--engine", "numpy", "--prompt", "the", "--max-tokens", 3)
    assert cli("generate", "--model", tmp_path / f"out-1.5-{to}", *arguments).code == 0


def test_blocks_without_adapter_can_be_kept(cli, base, tmp_path):
    blocks, out = tmp_path / "base.gguf", tmp_path / "out.gguf"
    assert cli("export", "--model", base, "--format", "gguf", "--dtype", "q4_1", "--out", blocks).code == 0
    adapter = save_adapter(tmp_path / "adapter", blocks, LoraConfig(r=3, target_modules=("v_proj",)))
    done = cli("merge", "--adapter", adapter, "--out", out, "--dtype", "keep")
    assert done.code == 0, done.shown
    with open_weights(blocks) as before, open_weights(out) as after:
        for name in before:
            if "v_proj" in name:
                assert after.dtype_name(name) == "F32"
            elif "norm" not in name:
                np.testing.assert_array_equal(after.raw(name).blocks, before.raw(name).blocks, err_msg=name)


def test_a_fresh_adapter_is_said_to_change_nothing(cli, base, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", base, LoraConfig(r=3), scale=0.0)
    done = cli("merge", "--adapter", adapter, "--out", tmp_path / "out")
    assert done.code == 0 and "changes no weight" in done.out


def test_a_damaged_copy_never_gets_the_name(cli, base, adapter, tmp_path, monkeypatch):
    from nano_llama.formats import safetensors

    def damaged(array):
        copy = np.array(array)
        copy.reshape(-1)[-1] += 1
        return memoryview(np.ascontiguousarray(copy).reshape(-1).view(np.uint8))

    monkeypatch.setattr(safetensors, "contiguous_bytes", damaged)
    done = cli("merge", "--adapter", adapter, "--out", tmp_path / "out")
    assert done.code == 1 and "read back" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_what_cannot_be_honoured_is_refused(cli, base, adapter, make_tiny, tmp_path):
    out = tmp_path / "out"
    other = make_tiny(tmp_path / "other")
    nameless = save_adapter(tmp_path / "nameless", base, LoraConfig(), base_model=None)
    lost = save_adapter(tmp_path / "lost", base, LoraConfig(), base_model="models/that-was")
    for arguments, said in (
        (["--adapter", adapter, "--out", other], "already exists"),
        (["--adapter", tmp_path / "nowhere", "--out", out], "No adapter at"),
        (["--adapter", base, "--out", out], "is not an adapter"),
        (["--adapter", adapter, "--model", adapter, "--out", out], "is an adapter, not a model"),
        (["--adapter", adapter, "--model", other, "--out", out], "Is it an adapter of another model?"),
        (["--adapter", nameless, "--out", out], "--model"),
        (["--adapter", lost, "--out", out], "was trained on models/that-was. "),
        (["--adapter", adapter, "--out", out, "--dtype", "q8_0"], "q8_0"),
        (["--adapter", adapter, "--out", tmp_path / "out.gguf", "--dtype", "q9"], "q9"),
    ):
        done = cli("merge", *arguments)
        assert done.code in (1, 2) and said in done.err, (said, done.shown)
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_model_with_an_adapted_head_is_written_untied(cli, make_tiny, tmp_path, tied):
    base = make_tiny(tmp_path / "base", tie_word_embeddings=tied)
    adapter = save_adapter(tmp_path / "adapter", base, LoraConfig(r=2, target_modules=(*LAYER_TARGETS, "lm_head")))
    assert cli("merge", "--adapter", adapter, "--out", tmp_path / "out").code == 0
    with open_weights(tmp_path / "out") as written:
        assert not written.config.tie_word_embeddings
    expected = Llama.from_pretrained(base, adapter=adapter).forward(TEXT)
    assert relative_error(Llama.from_pretrained(tmp_path / "out").forward(TEXT), expected) == 0


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def pictured(request, tmp_path):
    """A model that reads images, and an adapter of its LLaMA, head included."""
    VisionLanguageModel.init(tiny_vision_language_config(tied=request.param), seed=1).save(tmp_path / "eyes")
    lora = LoraConfig(r=2, target_modules=(*LAYER_TARGETS, "lm_head"))
    with open_language_model(tmp_path / "eyes") as weights:
        tensors = random_adapter(lora, weights.config, weights)
    save_adapter_files(tmp_path / "adapter", lora, tensors, base_model=str(tmp_path / "eyes"))
    return tmp_path


def test_of_a_model_that_reads_images_the_llama_is_merged(cli, pictured):
    """Its encoder is the same bit by bit, and all computes what the LLaMA's matrices and their changes do."""
    done = cli("merge", "--adapter", pictured / "adapter", "--out", pictured / "out")
    assert done.code == 0 and "15 matrices" in done.out and "--image FILE" in done.out
    config, merged = open_vision_language(pictured / "out")
    before = VisionLanguageModel.from_pretrained(pictured / "eyes", dtype=np.float64)
    params = dict(before.params)
    with open_merged(pictured / "eyes", pictured / "adapter", np.float64, open_language_model) as llama:
        assert config.text_config == llama.config and not config.text_config.tie_word_embeddings
        params |= {text_name(name): llama[name] for name in llama}
    for name in vision_shapes(config):
        assert np.array_equal(merged[name], before.params[name]), name
    tokens, _, pixels = case(config)
    found = VisionLanguageModel.from_pretrained(pictured / "out", dtype=np.float64).forward(tokens, pixels)
    assert relative_error(found, VisionLanguageModel(config, params).forward(tokens, pixels)) < 1e-5  # float32
    assert relative_error(before.forward(tokens, pixels), found) > 0.1


def test_a_damaged_encoder_never_gets_the_name_either(cli, pictured, monkeypatch):
    from nano_llama.cli import merge

    right = merge.save_vision_language

    def damaged(out, config, weights, *others, **more):
        wrong = {name: weights[name] + (name.endswith("patch_embedding.bias")) for name in weights}
        right(out, config, wrong, *others, **more)

    monkeypatch.setattr(merge, "save_vision_language", damaged)
    done = cli("merge", "--adapter", pictured / "adapter", "--out", pictured / "out")
    assert done.code == 1 and "patch_embedding.bias was read back" in done.err and not (pictured / "out").exists()


def test_of_a_model_that_reads_images_no_gguf_is_written(cli, pictured):
    done = cli("merge", "--adapter", pictured / "adapter", "--out", pictured / "out.gguf")
    assert done.code == 2 and "reads images" in done.err and "Give a folder" in done.err
