"""Adapters in the CPU runner: a mixed batch to the last bit, and beside quantized weights."""

import numpy as np
import pytest

from helpers.adapters import KINDS, save_kinds
from helpers.stub_engine import PackedTexts
from nano_llama.core.config import LlamaConfig
from nano_llama.core.init import init_params
from nano_llama.formats import open_weights, save_gguf
from nano_llama.formats.kinds import Kind
from nano_llama.formats.peft import read_adapter
from nano_llama.vol1_numpy import Llama
from nano_llama.vol3_engine.adapters import low_rank_updates
from nano_llama.vol3_engine.cpu.runner import CpuRunner

CONFIG = LlamaConfig(
    vocab_size=101, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=6,
    num_key_value_heads=2, head_dim=32, max_position_embeddings=1024, initializer_range=0.1,
)  # fmt: skip
TEXTS = {  # text -> its tokens and its adapter
    0: ([5, 6, 7], "lora"),
    1: ([int(7 * i * i % 101) for i in range(90)], "dora"),
    2: ([11], None),
    3: ([int(i * i % 97) for i in range(40)], "lora"),
    4: ([3, 1, 4, 1, 5, 9, 2, 6], "rslora"),
    5: ([int(i * i % 89) for i in range(33)], None),
    6: ([27, 18], "dora"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny model as .gguf files, tied and untied, whose rows are whole groups, and adapters of every kind."""
    folder = tmp_path_factory.mktemp("adapters")
    for tied in (True, False):
        config = CONFIG.replace(tie_word_embeddings=tied)
        for kind in ("F32", "Q4_1", "Q8_0", "BF16"):
            name = f"{kind}{'-tied' if tied else ''}.gguf"
            save_gguf(folder / name, config, init_params(config, 3), dtype=kind)
    return folder, save_kinds(folder, CONFIG, init_params(CONFIG, 3))


@pytest.fixture
def texts():
    """Texts in a runner's blocks; runners are closed at the end."""
    runners = []

    def make(runner, prompt_length=0):
        runners.append(runner)
        return PackedTexts(runner, 100, block_size=16, prompt_length=prompt_length)

    yield make
    for runner in runners:
        runner.close()


def logits_of(packed, groups, chunk):
    """{(text, step): logits} after the prompts, fed in chunks, and after three tokens more; a group at a time."""
    found = {}
    packed.adapters = {text: adapter for text, (_, adapter) in TEXTS.items()}
    for group in groups:
        for start in range(0, max(len(TEXTS[text][0]) for text in group), chunk):
            pieces = {text: TEXTS[text][0][start : start + chunk] for text in group if TEXTS[text][0][start:]}
            found |= {(text, 0): logits for text, logits in packed.step(pieces).items()}
        for step in (1, 2, 3):
            found |= {(text, step): logits for text, logits in packed.step({text: [step] for text in group}).items()}
    return found


@pytest.mark.parametrize(("file", "prompt_length"), [("F32.gguf", 0), ("Q4_1-tied.gguf", 0), ("BF16.gguf", 1000)])
def test_a_batch_of_mixed_adapters_is_each_alone_to_the_last_bit(saved, texts, file, prompt_length):
    folder, adapters = saved
    load = CpuRunner.load
    alone = logits_of(texts(load(folder / file, num_threads=1, adapters=adapters), prompt_length), zip(TEXTS), 1000)
    base = logits_of(texts(load(folder / file, num_threads=1), prompt_length), [[2], [5]], 1000)
    for key, logits in base.items():
        np.testing.assert_array_equal(alone[key], logits, err_msg="adapters are loaded, and not asked for")
    for threads, chunk, groups in ((2, 1000, [[*TEXTS]]), (2, 37, [[*TEXTS]]), (3, 16, [[6, 3, 5], [1, 0, 4, 2]])):
        runner = load(folder / file, num_threads=threads, adapters=adapters)
        mixed = logits_of(texts(runner, prompt_length), groups, chunk)
        assert mixed.keys() == alone.keys()
        for key, logits in mixed.items():
            np.testing.assert_array_equal(logits, alone[key], err_msg=f"{key}, {threads} threads, chunks of {chunk}")


EMBED = "model.embed_tokens.weight"


def merged(config, params, adapter):
    """Volume 1 on the merged weights, a tied head apart from its embedding."""
    matrices = {**params, "lm_head.weight": params["lm_head.weight" if "lm_head.weight" in params else EMBED]}
    for module, (A, B, rescaling) in low_rank_updates(adapter, lambda module: matrices[f"{module}.weight"]).items():
        matrices[f"{module}.weight"] = rescaling[:, None] * matrices[f"{module}.weight"] + B @ A
    return Llama(config.replace(tie_word_embeddings=False), matrices)


@pytest.mark.parametrize("tied", ["", "-tied"])
@pytest.mark.parametrize(("kind", "bound"), [("F32", 1e-5), ("Q4_1", 0.06), ("Q8_0", 0.06), ("BF16", 0.04)])
def test_beside_quantized_weights(saved, texts, kind, bound, tied):
    """Against Volume 1 on the dequantized and merged weights: only activations of 8 bits and keys of 16 differ."""
    folder, adapters = saved
    runner = CpuRunner.load(folder / f"{kind}{tied}.gguf", num_threads=2, adapters=adapters)
    assert set(runner.model.adapters.A[..., 0].flat) == {0, (Kind.F32 if kind == "F32" else Kind.BF16).number}
    with open_weights(folder / f"{kind}{tied}.gguf") as weights:
        params = {name: np.asarray(weights[name], np.float32) for name in weights}
    found = logits_of(texts(runner), [list(TEXTS)], 1000)
    models = {name: merged(runner.config, params, read_adapter(adapters[name], runner.config)) for name in KINDS}
    for (text, step), logits in found.items():
        tokens, name = TEXTS[text]
        if name is not None:
            meant = models[name].forward(np.array([[*tokens, *range(1, step + 1)]]))[0, -1]
            error = np.abs(logits - meant).max() / np.abs(meant).max()
            assert error < bound, f"{kind}{tied}, {name}: text {text} after {step} steps: {error:.1e}"
