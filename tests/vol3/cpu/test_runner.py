"""The CPU runner against Volume 1 in float32, and against itself: batch invariance."""

import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from helpers.stub_engine import PackedTexts
from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.core.init import init_params
from nano_llama.formats import GGUFFile, open_weights, save_gguf
from nano_llama.formats.gguf_quants import dequantize, quantize
from nano_llama.formats.gguf_writer import PlannedTensor, write_gguf
from nano_llama.formats.kinds import Kind
from nano_llama.formats.mapping import Arrays
from nano_llama.formats.quantization_scheme import Scheme
from nano_llama.vol1_numpy import Llama
from nano_llama.vol3_engine.cpu.jit import compile_cache
from nano_llama.vol3_engine.cpu.kernels.model import KIND
from nano_llama.vol3_engine.cpu.kernels.step import PHASES
from nano_llama.vol3_engine.cpu.runner import CpuRunner

PROMPTS = [[5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9], [11], [int(i * i % 97) for i in range(40)]]
LONG = [int(7 * i * i % 101) for i in range(600)]


@pytest.fixture
def packed():
    """Sequences in a runner's blocks; runners are closed at the end."""
    runners = []

    def make(runner, num_blocks=100, seed=0, prompt_length=0):
        runners.append(runner)
        return PackedTexts(runner, num_blocks, block_size=16, seed=seed, prompt_length=prompt_length)

    yield make
    for runner in runners:
        runner.close()


def runner_of(config, seed=1, threads=2, **settings):
    params = init_params(config, seed)
    return CpuRunner(config, Arrays(params), num_threads=threads, **{"kv_cache_dtype": "float32", **settings}), params


def close(ours, expected, what, bound=1e-5):
    error = np.abs(ours - expected).max() / np.abs(expected).max()
    assert error < bound, f"{what}: relative error {error:.1e}"


def reference(config, params, tokens):
    return Llama(config, params).forward(np.array([tokens]))[0, -1]


SHAPES = {
    "mha": dict(attention="mha", tied=True),
    "gqa, yarn": dict(attention="gqa", rope="yarn"),
    "mqa, llama3": dict(attention="mqa", rope="llama3", tied=True),
    "linear, heads of 32": dict(rope="linear", head_dim=32),
    "heads of 80, 16 blocks and more": dict(head_dim=80, hidden_size=96, vocab_size=130),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_volume_1(tiny_config, packed, shape):
    config = tiny_config(**SHAPES[shape])
    runner, params = runner_of(config)
    sequences = packed(runner)
    contexts = [list(prompt) for prompt in PROMPTS]
    logits = sequences.step(dict(enumerate(PROMPTS)))
    for step in range(3):
        for row, sequence in enumerate(contexts):
            close(logits[row], reference(config, params, sequence), f"{shape}, sequence {row} after {step} steps")
            sequence.append(10 * step + row)
        logits = sequences.step({row: sequence[-1:] for row, sequence in enumerate(contexts)})


def test_blocks_that_are_written_in_the_same_step_can_be_read(tiny_config, packed):
    """Samples of one prompt begin together: the first writes its blocks, the others read them in the same step."""
    config = tiny_config("gqa")
    runner, params = runner_of(config)
    sequences = packed(runner)
    prompt = PROMPTS[3]  # of 40 tokens: two full blocks
    sequences.tables[1] = [sequences.free.pop() for _ in range(3)]
    sequences.tables[5], sequences.lengths[5] = sequences.tables[1][:2], 32
    logits = sequences.step({1: prompt, 5: [77, 78]})
    close(logits[1], reference(config, params, prompt), "the writer")
    close(logits[5], reference(config, params, [*prompt[:32], 77, 78]), "the reader")


def test_a_long_sequence_equals_volume_1(tiny_config, packed):
    """Several KV splits of 256 positions, divided among threads when it decodes."""
    config = tiny_config("gqa", max_position_embeddings=1024)
    runner, params = runner_of(config)
    sequences = packed(runner)
    close(sequences.step({0: LONG})[0], reference(config, params, LONG), "prompt")
    close(sequences.step({0: [3]})[0], reference(config, params, [*LONG, 3]), "decode")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A tiny model as .gguf files, whose rows are whole groups."""
    config = LlamaConfig(
        vocab_size=101, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=1024, initializer_range=0.1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("gguf")
    for kind in ("Q4_0", "Q4_1", "Q8_0", "BF16", "F16"):
        save_gguf(folder / f"{kind}.gguf", config, init_params(config, 3), dtype=kind)
    return folder


@pytest.mark.parametrize("prompt_length", [0, 7, 1000])
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "BF16", "F16"])
def test_a_gguf_is_computed_in_its_own_kind(quantized, packed, kind, prompt_length):
    """Against Volume 1 on the dequantized weights: only activations of 8 bits and keys of 16 differ."""
    path = quantized / f"{kind}.gguf"
    runner = CpuRunner.load(path, num_threads=2)
    with open_weights(path) as weights:
        params = {name: np.asarray(weights[name], np.float32) for name in weights}
    sequences = packed(runner, prompt_length=prompt_length)
    logits = sequences.step(dict(enumerate(PROMPTS)))
    for row, prompt in enumerate(PROMPTS):
        close(logits[row], reference(runner.config, params, prompt), f"{kind}, sequence {row}", bound=0.04)


def save_in_blocks_of(kind, path):
    """A tiny .gguf whose layers are of a kind that is only read: random bits, scales for numbers of about 0.1."""
    config = LlamaConfig(
        vocab_size=101, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=8,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=64,
    )  # fmt: skip
    save_gguf(path, config, init_params(config, 3), dtype="Q8_0")
    plain, plan, rng = GGUFFile(path), [], np.random.default_rng(3)
    metadata = plain.metadata
    for name, info in plain.tensors.items():
        stored, blocks = info.kind, np.array(plain.blocks(name))
        if name.startswith("blk.") and len(info.shape) == 2:
            stored = Kind[kind]
            rows, columns = info.shape
            blocks = rng.integers(0, 256, (rows, columns // stored.block_size, stored.block_bytes), np.uint8)
            for at, scale in SCALES[kind].items():
                blocks[..., at : at + 2] = np.array([scale], np.float16).view(np.uint8)
            blocks = blocks.reshape(info.shape[0], -1)
        plan.append(PlannedTensor(name, stored, info.shape, lambda blocks=blocks: blocks))
    write_gguf(path.with_suffix(f".{kind}.gguf"), metadata, plan)
    return path.with_suffix(f".{kind}.gguf")


SCALES = {  # byte in the block -> its scale, or its minimum, which then is the middle of what the scale spans
    "Q5_0": {0: 0.01}, "Q5_1": {0: 0.01, 2: -0.155},
    "Q4_K": {0: 4e-4, 2: 3e-3}, "Q5_K": {0: 2e-4, 2: 3e-3}, "Q6_K": {208: 8e-5},
}  # fmt: skip


@pytest.mark.parametrize("kind", SCALES)
def test_a_kind_without_a_kernel_is_repacked_to_8_bits_with_a_warning(tmp_path, packed, kind):
    path = save_in_blocks_of(kind, tmp_path / "model.gguf")
    with pytest.warns(UserWarning, match=rf"{kind} has no kernel of its own; these matrices are repacked to 8 bits"):
        runner = CpuRunner.load(path, num_threads=2)
    assert (runner.model.layers[..., KIND] == Kind.Q8_0.number).all()
    with open_weights(path) as weights:
        params = {name: np.asarray(weights[name], np.float32) for name in weights}
    rounded = {name: dequantize("Q8_0", quantize("Q8_0", w)) if w.ndim == 2 else w for name, w in params.items()}
    logits = packed(runner).step(dict(enumerate(PROMPTS)))
    for row, prompt in enumerate(PROMPTS):
        close(
            logits[row],
            reference(runner.config, rounded, prompt),
            f"{kind}, sequence {row}: activations' bits",
            bound=0.03,
        )
        close(
            logits[row],
            reference(runner.config, params, prompt),
            f"{kind}, sequence {row}: weights' bits too",
            bound=0.06,
        )


def test_a_scheme_quantizes_while_loading(tiny_config, packed):
    """Mixed precision, against Volume 1 on the same numbers, dequantized."""
    config = tiny_config("gqa", hidden_size=96, head_dim=32, intermediate_size=96, initializer_range=0.1)
    params = init_params(config, 3)
    original = reference(config, params, LONG[:20])
    scheme = "int4,first=int8,*.1.mlp.up_proj.weight=float32,*.o_proj.weight=bfloat16"
    kinds = Scheme.parse(scheme).kinds(config)
    sequences = packed(CpuRunner(config, Arrays(params), num_threads=2, quantization=scheme))
    for name, kind in kinds.items():
        if kind in ("Q8_0", "Q4_1"):
            params[name] = dequantize(kind, quantize(kind, params[name]))
    logits, meant = sequences.step({0: LONG[:20]})[0], reference(config, params, LONG[:20])
    close(logits, meant, scheme, bound=0.06)
    assert np.linalg.norm(logits - meant) < 0.6 * np.linalg.norm(logits - original), "quantization costs more"


@pytest.mark.parametrize(
    ("kv", "kind", "prompt_length"),
    [("float32", "Q4_1", 0), ("bfloat16", "Q4_1", 1000), ("int8", "Q4_1", 35), ("bfloat16", "BF16", 450)],
)
def test_batch_invariance(quantized, packed, kv, kind, prompt_length):
    """A row's bits do not depend on the batch, the prompt's chunks or the threads: one long sequence and short ones."""
    sequences = {0: LONG[:500], 1: PROMPTS[1], 2: PROMPTS[3]}

    def run(threads, chunk, together):
        runner = CpuRunner.load(quantized / f"{kind}.gguf", num_threads=threads, kv_cache_dtype=kv)
        batch, result = packed(runner, seed=threads, prompt_length=prompt_length), {}
        groups = [sequences] if together else [{sequence: tokens} for sequence, tokens in sequences.items()]
        for group in groups:
            for start in range(0, max(map(len, group.values())), chunk):
                part = {t: tokens[start : start + chunk] for t, tokens in group.items() if tokens[start:]}
                for sequence, logits in batch.step(part).items():
                    result[sequence] = logits
        for step in range(3):
            for group in [list(sequences)] if together else [[t] for t in sequences]:
                for sequence, logits in batch.step({sequence: [step] for sequence in group}).items():
                    result[sequence, step] = logits
        return result

    expected = run(1, 1000, together=False)
    for threads, chunk, together in ((2, 1000, True), (2, 37, True), (2, 37, False), (3, 100, True)):
        for key, logits in run(threads, chunk, together).items():
            what = f"{key}: {threads} threads, chunks of {chunk}, {'one batch' if together else 'one by one'}"
            np.testing.assert_array_equal(logits, expected[key], err_msg=what)


@pytest.mark.parametrize(("kv", "bound"), [("bfloat16", 0.01), ("int8", 0.02)])
def test_narrow_kv_caches_are_close(quantized, packed, kv, bound):
    exact, near = (
        packed(CpuRunner.load(quantized / "BF16.gguf", num_threads=1, kv_cache_dtype=kind)).step({0: LONG})[0]
        for kind in ("float32", kv)
    )
    assert np.any(near != exact), "the cache is float32"
    close(near, exact, kv, bound)


def test_two_runners_are_independent(tiny_config, packed):
    config = tiny_config()
    first, second = (packed(runner_of(config)[0]) for _ in range(2))
    for tokens in ([1, 2, 3], [4], [5]):
        np.testing.assert_array_equal(first.step({0: tokens})[0], second.step({0: tokens})[0])


def test_no_logits_without_sampled_rows(tiny_config, packed):
    assert packed(runner_of(tiny_config())[0]).step({0: [1, 2, 3]}, quiet=(0,)) == {}


def test_kernels_compile_before_the_first_step(tiny_config, packed, monkeypatch):
    entered = []

    @contextmanager
    def compiling(folder, what):
        entered.append(what)
        yield

    monkeypatch.setattr(compile_cache, "compiling", compiling)
    packed(runner_of(tiny_config())[0])
    assert entered == ["repack", "step-float32"]


def test_time_per_phase(tiny_config, packed):
    runner, _ = runner_of(tiny_config())
    sequences = packed(runner)
    sequences.step({0: LONG[:20]})
    assert runner.seconds == {}, "off by default"
    runner.time_phases()
    sequences.step({0: LONG[20:50]})
    assert set(runner.seconds) == set(PHASES)
    assert all(runner.seconds[part] > 0 for part in ("qkv", "attention", "o", "gate_up", "down", "head"))


def test_kv_bytes_per_token(tiny_config):
    for kv, itemsize in (("float32", 4), ("bfloat16", 2)):
        runner, _ = runner_of(tiny_config("gqa", head_dim=16), kv_cache_dtype=kv)
        runner.allocate(num_blocks=12, block_size=16)
        assert runner.kv_bytes_per_token == 2 * 2 * 2 * 16 * itemsize
        assert runner._cache.keys.nbytes + runner._cache.values.nbytes == 12 * 16 * runner.kv_bytes_per_token


def test_impossible_settings_are_refused(tiny_config):
    with pytest.raises(UserError, match="dynamic"):
        runner_of(tiny_config(rope="dynamic"))
    with pytest.raises(UserError, match="kv_cache_dtype='int4'"):
        runner_of(tiny_config(), kv_cache_dtype="int4")
    with pytest.raises(EnvironmentFault, match="GiB left for keys and values"):
        runner_of(tiny_config())[0].allocate(num_blocks=2**42, block_size=16)


def test_it_runs_without_torch(quantized):
    code = f"""
import sys
sys.modules["torch"] = None
from nano_llama.vol3_engine.batch import Chunk, PackedBatch
from nano_llama.vol3_engine.cpu.runner import CpuRunner
runner = CpuRunner.load({str(quantized / "Q4_1.gguf")!r}, num_threads=2)
runner.allocate(4, 16)
print(runner.execute(PackedBatch.pack([Chunk([1, 2], 0, 2, [3])])).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(1, 101)", done.stderr
