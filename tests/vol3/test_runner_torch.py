"""The Torch runner: packed rows get the logits of the model on each text alone, however it is cut into chunks."""

import numpy as np
import pytest

from helpers.stub_engine import PackedTexts

torch = pytest.importorskip("torch")

from nano_llama.core.errors import EnvironmentFault, UserError  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol3_engine.runner.torch import TorchRunner, resolve_dtype  # noqa: E402

PROMPTS = [[5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9], [11]]
STEPS = [[21, 22, 23], [31, 32, 33], [41, 42, 43]]  # three tokens for each text, one a row


def alone(model, text):
    with torch.no_grad():
        return model(torch.tensor([text]))[0, -1].numpy()


def close(ours, expected, what):
    error = np.abs(ours - expected).max() / np.abs(expected).max()
    assert error < 1e-5, f"{what}: relative error {error:.1e}"


@pytest.mark.parametrize("rope", ["default", "linear", "llama3", "yarn"])
@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
def test_packed_rows_equal_the_model_alone(tiny_config, attention, rope):
    model = Llama.init(tiny_config(attention, tied=True, rope=rope), seed=1)
    packed = PackedTexts(TorchRunner(model))
    texts = [list(prompt) for prompt in PROMPTS]
    logits = packed.step(dict(enumerate(PROMPTS)))
    for step in range(4):
        for row, text in enumerate(texts):
            close(logits[row], alone(model, text), f"text {row} after {step} steps")
        if step < 3:
            tokens = {row: [STEPS[row][step]] for row in range(3)}
            for row, (token,) in tokens.items():
                texts[row].append(token)
            logits = packed.step(tokens)


def test_chunked_prefill_beside_decoding(tiny_config):
    """Prompt chunks beside decoding sequences, in any order: every logit as if alone."""
    model = Llama.init(tiny_config("gqa"), seed=2)
    packed = PackedTexts(TorchRunner(model), block_size=4)
    prompt = PROMPTS[1]
    packed.step({0: PROMPTS[0]})
    first = packed.step({1: prompt[:3], 0: [21]}, quiet=(1,))
    second = packed.step({2: PROMPTS[2], 1: prompt[3:8], 0: [22]}, quiet=(1,))
    third = packed.step({2: [41], 0: [23], 1: prompt[8:]})
    close(first[0], alone(model, [*PROMPTS[0], 21]), "text 0, first")
    close(second[0], alone(model, [*PROMPTS[0], 21, 22]), "text 0, second")
    close(second[2], alone(model, PROMPTS[2]), "text 2")
    close(third[0], alone(model, [*PROMPTS[0], 21, 22, 23]), "text 0, third")
    close(third[1], alone(model, prompt), "text 1, in three chunks")
    close(third[2], alone(model, [*PROMPTS[2], 41]), "text 2, third")


def test_blocks_of_another_sequence_can_be_read(tiny_config):
    """What prefix caching needs: a sequence whose prefix is in another's blocks continues as if it had computed it."""
    model = Llama.init(tiny_config("gqa"), seed=2)
    packed = PackedTexts(TorchRunner(model), block_size=4)
    packed.step({1: PROMPTS[1]})
    packed.tables[5], packed.lengths[5] = packed.tables[1][:2], 8
    close(packed.step({5: [77, 78]})[5], alone(model, [*PROMPTS[1][:8], 77, 78]), "after eight shared tokens")
    close(packed.step({1: [31]})[1], alone(model, [*PROMPTS[1], 31]), "the first text, undisturbed")


def test_blocks_written_in_the_same_step_can_be_read(tiny_config):
    """As when several samples of one prompt start together."""
    model = Llama.init(tiny_config("gqa"), seed=2)
    packed = PackedTexts(TorchRunner(model), block_size=4)
    packed.tables[1] = [packed.free.pop() for _ in range(3)]
    packed.tables[5], packed.lengths[5] = packed.tables[1][:2], 8
    logits = packed.step({1: PROMPTS[1], 5: [77, 78]})
    close(logits[1], alone(model, PROMPTS[1]), "the sequence that writes")
    close(logits[5], alone(model, [*PROMPTS[1][:8], 77, 78]), "the sequence that reads")


def test_a_step_without_sampled_rows(tiny_config):
    packed = PackedTexts(TorchRunner(Llama.init(tiny_config(), seed=0)))
    assert packed.step({0: [1, 2, 3]}, quiet=(0,)) == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(tiny_config, dtype):
    exact = Llama.init(tiny_config("gqa", initializer_range=0.1), seed=1)
    half = Llama.init(tiny_config("gqa", initializer_range=0.1), seed=1, dtype=dtype)
    packed = PackedTexts(TorchRunner(half))
    logits = packed.step(dict(enumerate(PROMPTS)))
    for row, prompt in enumerate(PROMPTS):
        expected = alone(exact, prompt)
        assert np.abs(logits[row] - expected).max() / np.abs(expected).max() < 0.05


def test_dynamic_rope_is_refused(tiny_config):
    with pytest.raises(UserError, match="dynamic"):
        TorchRunner(Llama.init(tiny_config(rope="dynamic"), seed=0))


def test_cache_memory_is_what_the_blocks_cost_and_is_released(tiny_config):
    for dtype in (torch.float32, torch.bfloat16):
        runner = TorchRunner(Llama.init(tiny_config("gqa"), seed=0, dtype=dtype))
        runner.allocate(num_blocks=12, block_size=16)
        assert sum(k.nbytes + v.nbytes for k, v in runner.cache) == 12 * 16 * runner.kv_bytes_per_token
        runner.close()
        assert not runner.cache


def test_too_little_memory_is_reported(tiny_config):
    with pytest.raises(EnvironmentFault, match="GiB left for keys and values"):
        TorchRunner(Llama.init(tiny_config(), seed=0)).allocate(num_blocks=2**42, block_size=16)


def test_the_number_of_threads_is_restored(tiny_config):
    before = torch.get_num_threads()
    runner = TorchRunner(Llama.init(tiny_config(), seed=0), num_threads=before + 1)
    with runner.computing():
        assert torch.get_num_threads() == before + 1
    with pytest.raises(UserError), runner.computing():
        raise UserError("x")
    assert torch.get_num_threads() == before and torch.is_grad_enabled()


def test_a_model_can_be_trained_after_generating(tiny_config):
    """Tables that the model caches while generating must work in training too."""
    model = Llama.init(tiny_config(), seed=0)
    PackedTexts(TorchRunner(model)).step({0: [1, 2, 3]})
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_auto_dtype_is_exact_on_the_cpu_and_half_on_a_gpu():
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", torch.device("mps")) == torch.float16
    assert resolve_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
