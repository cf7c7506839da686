"""The NumPy runner: packed rows get Volume 1's logits, and the compiled step's; LLM runs on it from end to end."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from helpers.stub_engine import ByteTokenizer, PackedTexts, small_config
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.core.init import init_params
from nano_llama.core.sampling import SamplingParams
from nano_llama.formats import save_hf
from nano_llama.formats.mapping import Arrays
from nano_llama.vol1_numpy import Llama
from nano_llama.vol1_numpy.ops.registry import PLAIN
from nano_llama.vol3_engine.cpu.runner import CpuRunner
from nano_llama.vol3_engine.llm import LLM
from nano_llama.vol3_engine.runner.numpy import NumpyRunner

PROMPTS = [[5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9], [11]]


def alone(model, text):
    return model.forward(np.array([text]))[0, -1]


def assert_close(ours, expected, what):
    error = np.abs(ours - expected).max() / np.abs(expected).max()
    assert error < 1e-5, f"{what}: relative error {error:.1e}"


@pytest.mark.parametrize("ops", [{}, {"ops": PLAIN}], ids=["fast", "plain"])
@pytest.mark.parametrize("rope", ["default", "linear", "dynamic", "llama3", "yarn"])
@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
def test_packed_rows_equal_the_model_alone(tiny_config, attention, rope, ops):
    model = Llama.init(tiny_config(attention, tied=attention == "gqa", rope=rope), seed=1, **ops)
    packed = PackedTexts(NumpyRunner(model))
    texts = [list(prompt) for prompt in PROMPTS]
    logits = packed.step(dict(enumerate(PROMPTS)))
    for step in range(3):
        for row, text in enumerate(texts):
            assert_close(logits[row], alone(model, text), f"text {row} after {step} steps")
            text.append(20 + 10 * row + step)
        logits = packed.step({row: text[-1:] for row, text in enumerate(texts)})


def test_blocks_written_in_the_same_step_can_be_read(tiny_config):
    """As when several samples of one prompt start together."""
    model = Llama.init(tiny_config("gqa"), seed=2)
    packed = PackedTexts(NumpyRunner(model), block_size=4)
    packed.tables[1] = [packed.free.pop() for _ in range(3)]
    packed.tables[5], packed.lengths[5] = packed.tables[1][:2], 8
    logits = packed.step({5: [77, 78], 1: PROMPTS[1]})
    assert_close(logits[1], alone(model, PROMPTS[1]), "the sequence that writes")
    assert_close(logits[5], alone(model, [*PROMPTS[1][:8], 77, 78]), "the sequence that reads")


def test_random_mixed_batches_give_the_logits_of_the_compiled_step(tiny_config):
    """Prompts in chunks beside decoding sequences, in random order: the same batches through both runners."""
    config = tiny_config("gqa", max_position_embeddings=256)
    params = init_params(config, 3)
    compiled = CpuRunner(config, Arrays(params), num_threads=2, kv_cache_dtype="float32")
    pair = [
        PackedTexts(runner, num_blocks=100, block_size=16, prompt_length=20)
        for runner in (NumpyRunner(Llama(config, params)), compiled)
    ]
    rng = np.random.default_rng(0)
    for step in range(25):
        members = rng.permutation(6)[: rng.integers(1, 7)].tolist()
        sizes = [int(rng.choice([1, 1, 1, 2, 7, 30])) for _ in members]
        chunks = {text: rng.integers(0, 101, size).tolist() for text, size in zip(members, sizes, strict=True)}
        chunks = {text: tokens for text, tokens in chunks.items() if pair[0].lengths.get(text, 0) + len(tokens) <= 256}
        quiet = tuple(text for text in chunks if rng.random() < 0.3)
        if not chunks:
            continue
        ours, theirs = (texts.step(chunks, quiet) for texts in pair)
        for text in ours:
            assert_close(theirs[text], ours[text], f"step {step}, text {text} of {chunks}")
    compiled.close()


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    from nano_llama.tokenizer import Tokenizer

    tokenizer = Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog. " * 40], 300)
    config = small_config(vocab_size=tokenizer.vocab_size, initializer_range=0.3)
    folder = tmp_path_factory.mktemp("models") / "small"
    save_hf(folder, config, init_params(config, 1), tokenizer)
    return folder


def test_llm_gives_the_greedy_text_of_the_cpu_runner(model_path):
    prompts = ["the quick", "fox", "the lazy dog. the lazy dog.", "dog. the quick brown"]
    params = SamplingParams(temperature=0.0, max_tokens=20)
    plain = LLM(model_path, runner="numpy", max_num_batched_tokens=8, max_num_seqs=3)
    compiled = LLM(model_path, runner="cpu", dtype="float32", num_threads=2)
    assert isinstance(plain.engine.runner, NumpyRunner) and isinstance(compiled.engine.runner, CpuRunner)
    ours, theirs = plain.generate(prompts, params), compiled.generate(prompts, params)
    assert [out.text for out in ours] == [out.text for out in theirs]
    assert [out.token_ids for out in ours] == [out.token_ids for out in theirs]
    compiled.close()


def test_llm_from_a_model_in_memory():
    model = Llama.init(small_config(initializer_range=0.3), seed=5)
    llm = LLM.from_model(model, ByteTokenizer(), max_num_seqs=2)
    params = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)
    for out in llm.generate(["abc", "x" * 20, "abc"], params):
        text = list(out.prompt_token_ids)
        for token in out.token_ids:
            assert token == int(alone(model, text).argmax())
            text.append(token)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"quantization": "int8"}, "quantization='int8' is not supported by the numpy runner"),
        ({"kv_cache_dtype": "int8"}, "kv_cache_dtype='int8'"),
        ({"dtype": "bfloat16"}, "dtype='bfloat16'"),
        ({"device": "cuda"}, "device='cuda'"),
    ],
)
def test_settings_it_cannot_honour_are_refused(model_path, settings, says):
    with pytest.raises(UserError, match=says):
        LLM(model_path, runner="numpy", **settings)


def test_num_threads_is_the_number_of_blas_threads(tiny_config, monkeypatch):
    model, found = Llama.init(tiny_config(), seed=0), []
    runner = PackedTexts(NumpyRunner(model, num_threads=1))
    forward = model.layer_forward

    def watched(*args):
        found.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return forward(*args)

    monkeypatch.setattr(model, "layer_forward", watched)
    runner.step({0: [1, 2, 3]})
    assert found and set(found) == {1}


def test_memory(tiny_config):
    for tied in (False, True):
        model = Llama.init(tiny_config("gqa", tied=tied), seed=0)
        runner = NumpyRunner(model)
        runner.allocate(num_blocks=12, block_size=16)
        assert runner.keys.nbytes + runner.values.nbytes == 12 * 16 * runner.kv_bytes_per_token
        read = {name: array for name, array in model.params.items() if tied or name != "model.embed_tokens.weight"}
        assert runner.weight_bytes == sum(array.nbytes for array in read.values())
    with pytest.raises(EnvironmentFault, match="GiB left for keys and values"):
        NumpyRunner(model).allocate(num_blocks=2**42, block_size=16)
