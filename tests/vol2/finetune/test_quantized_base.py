"""QLoRA: trained as LoRA on the dequantized base is, in a fraction of the memory."""

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers.adapters import randomize  # noqa: E402
from nano_llama.core.errors import UserError  # noqa: E402
from nano_llama.core.init import init_params  # noqa: E402
from nano_llama.core.lora import TARGETS  # noqa: E402
from nano_llama.core.names import EMBED, parameter_shapes  # noqa: E402
from nano_llama.formats import open_model, save_gguf, save_hf  # noqa: E402
from nano_llama.formats.gguf_quants import dequantize as dequantize_blocks  # noqa: E402
from nano_llama.formats.gguf_quants import quantize  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol2_torch.finetune import (  # noqa: E402
    LoraConfig,
    adapter_params,
    apply_lora,
    load_adapter,
    merge_lora,
    quantized_base,
    remove_lora,
    save_adapter,
)
from nano_llama.vol2_torch.loss import at_counted_positions, fitting_head_loss, loss_sum  # noqa: E402
from nano_llama.vol2_torch.quantized_linear import QuantizedMatrix  # noqa: E402

SHAPE = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
head_loss = at_counted_positions(fitting_head_loss)


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def config(request, tiny_config):
    return tiny_config(tied=request.param, **SHAPE)


@pytest.fixture
def pair(config, tmp_path):
    """A quantized base, and the same numbers as ordinary weights, which NumPy dequantized."""
    save_gguf(tmp_path / "base.gguf", config, init_params(config, 0), dtype="Q4_1")
    with open_model(tmp_path / "base.gguf") as weights:
        return quantized_base(config, weights, "int4"), Llama(config).load_params(weights)


def batch(config, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens, targets = torch.randint(0, config.vocab_size, (2, 3, 16), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < 0.5] = -100
    return tokens, targets


def losses(model, lora, steps=12):
    params = list(adapter_params(apply_lora(model, lora)).values())
    optimizer, found = torch.optim.AdamW(params, lr=0.02), []
    for step in range(steps):
        tokens, targets = batch(model.config, step % 3)
        loss = loss_sum(model, tokens, targets, head_loss) / (targets != -100).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("kind", [{}, {"dora": True}, {"target_modules": TARGETS}], ids=["lora", "dora", "head"])
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_the_losses_are_loras_on_the_dequantized_base(pair, kind, checkpointing):
    lora = LoraConfig(r=4, alpha=8, **kind)
    for model in pair:
        model.train_with(0.0, checkpointing)
    ours, plain = (losses(model, lora) for model in pair)
    assert plain[-1] < 0.9 * plain[0]
    np.testing.assert_allclose(ours, plain, rtol=1e-5)
    for name, p in adapter_params(pair[1]).items():
        torch.testing.assert_close(adapter_params(pair[0])[name], p, rtol=1e-3, atol=1e-5)


def test_gradients_are_loras_on_the_dequantized_base(pair):
    found = []
    for model in pair:
        params = adapter_params(apply_lora(model, LoraConfig(r=4, target_modules=TARGETS)))
        randomize(params)
        loss = loss_sum(model, *batch(model.config), head_loss)
        found.append(dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True)))
    for name, grad in found[1].items():
        assert grad.any() and (found[0][name] - grad).abs().max() <= 1e-5 * grad.abs().max(), name


@pytest.mark.parametrize("to", ["int4", "int8"])
def test_it_takes_at_most_035_of_float32s_bytes(config, to):
    model = quantized_base(config, init_params(config, 0), to)
    held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    assert held <= 0.35 * 4 * config.num_parameters
    assert model.dtype == torch.float32 and not any(p.requires_grad for p in model.parameters())


def test_nothing_of_a_matrix_is_kept_for_the_backward_pass(pair):
    model, dense = apply_lora(pair[0], LoraConfig(r=4)), pair[1]
    matrices = {shape for shape in parameter_shapes(model.config).values() if len(shape) == 2}
    matrices |= {shape[::-1] for shape in matrices}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        assert loss_sum(model, *batch(model.config), head_loss).requires_grad
        assert kept and not matrices & set(kept)
        loss_sum(dense, *batch(model.config), head_loss)
        assert matrices & set(kept)  # so they would have been seen


def test_a_matrix_is_rounded_once_unless_the_file_has_blocks_of_fewer_than_8_bits(config, tmp_path):
    weights = init_params(config, 0)
    save_hf(tmp_path / "floats", config, weights)
    name = "model.layers.1.self_attn.q_proj.weight"  # whose rows a GGUF has in another order
    kinds = {}
    for stored in ("Q4_0", "Q8_0", "F16"):
        save_gguf(tmp_path / f"{stored}.gguf", config, weights, dtype=stored)
    for path in ("floats", "Q4_0.gguf", "Q8_0.gguf", "F16.gguf"):
        for to in ("int4", "int8"):
            with open_model(tmp_path / path) as source:
                model, stored = quantized_base(config, source, to), source[name].astype(np.float32)
            matrix = model.get_submodule(name)
            kinds[path, to] = matrix.kind
            rounded = stored if path == "Q4_0.gguf" else dequantize_blocks(matrix.kind, quantize(matrix.kind, stored))
            np.testing.assert_allclose(matrix.dense().numpy(), rounded, rtol=1e-6)
    assert kinds == {
        ("floats", "int4"): "Q4_1", ("floats", "int8"): "Q8_0", ("Q4_0.gguf", "int4"): "Q4_0",
        ("Q4_0.gguf", "int8"): "Q4_0", ("Q8_0.gguf", "int4"): "Q4_1", ("Q8_0.gguf", "int8"): "Q8_0",
        ("F16.gguf", "int4"): "Q4_1", ("F16.gguf", "int8"): "Q8_0",
    }  # fmt: skip


def test_a_scheme_may_leave_matrices_as_they_are(config):
    weights = init_params(config, 0)
    model = quantized_base(config, weights, "int4,first=float32,embedding=int4")
    np.testing.assert_array_equal(
        model.model.layers[0].mlp.up_proj.weight, weights["model.layers.0.mlp.up_proj.weight"]
    )
    assert model.get_submodule(EMBED).kind == "Q4_1"
    losses(model, LoraConfig(), steps=1)


def test_rows_that_are_not_whole_groups_are_refused(tiny_config):
    config = tiny_config()
    with pytest.raises(UserError, match="rows of 48 numbers"):
        quantized_base(config, init_params(config, 0), "int4")


@pytest.mark.parametrize(
    "lora", [LoraConfig(r=2, alpha=2), LoraConfig(r=2, alpha=2, dora=True, target_modules=TARGETS)]
)
def test_merging_dequantizes_and_says_so(pair, lora):
    model = apply_lora(pair[0], lora)
    randomize(adapter_params(model))
    tokens, _ = batch(model.config)
    with torch.no_grad():
        adapted = model(tokens)
    with pytest.raises(UserError, match="quantized"):
        model.named_params()
    with pytest.warns(UserWarning, match="quantized matrices become torch.float32"):
        merged = merge_lora(model)
    assert not any(isinstance(module, QuantizedMatrix) for module in merged.modules())
    assert all(p.requires_grad for p in merged.named_params().values())
    assert (merged(tokens) - adapted).abs().max() < 1e-5 * adapted.abs().max()


def test_an_adapter_is_removed_saved_and_loaded(pair, tmp_path):
    model, dense = pair
    tokens, _ = batch(model.config)
    before = model(tokens)
    randomize(adapter_params(apply_lora(model, LoraConfig(r=2, dora=True))))
    adapted = model(tokens)
    save_adapter(model, tmp_path / "adapter")
    assert torch.equal(remove_lora(model)(tokens), before) and not torch.equal(adapted, before)
    assert torch.equal(load_adapter(model, tmp_path / "adapter")(tokens), adapted)
    torch.testing.assert_close(load_adapter(dense, tmp_path / "adapter")(tokens), adapted, rtol=1e-5, atol=1e-5)


MEASURE = """
import sys
import torch
from nano_llama.core.machine import peak_resident_bytes
from nano_llama.formats import open_model
from nano_llama.vol2_torch import Llama
from nano_llama.vol2_torch.finetune import LoraConfig, adapter_params, apply_lora, quantized_base
from nano_llama.vol2_torch.loss import at_counted_positions, fitting_head_loss, loss_sum
head_loss = at_counted_positions(fitting_head_loss)
torch.set_num_threads(1)
def step(path, quantized):
    with open_model(path) as weights:
        model = quantized_base(weights.config, weights, "int8") if quantized else Llama.from_pretrained(path)
    model.train_with(0.0, "full")
    params = list(adapter_params(apply_lora(model, LoraConfig(r=4))).values())
    optimizer = torch.optim.AdamW(params)
    for _ in range(2):
        loss_sum(model, torch.zeros(1, 32, dtype=torch.long), torch.ones(1, 32, dtype=torch.long), head_loss).backward()
        optimizer.step()
small, large, quantized = sys.argv[1], sys.argv[2], sys.argv[3] == "quantized"
step(small, quantized)  # whatever is loaded at first is loaded
before = peak_resident_bytes()
step(large, quantized)
print(peak_resident_bytes() - before)
"""


@pytest.mark.slow  # two processes that import torch and take real memory
def test_a_process_never_holds_the_dense_model(tiny_config, tmp_path):
    large = {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "num_key_value_heads": 8}
    config = tiny_config(**large, num_hidden_layers=16, vocab_size=4096)
    for name, shape in {"small": tiny_config(**SHAPE), "large": config}.items():
        save_hf(tmp_path / name, shape, init_params(shape, 0))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    taken = [
        int(subprocess.run([*command, form], capture_output=True, text=True, check=True).stdout)
        for form in ("dense", "quantized")
    ]
    weights = 4 * config.num_parameters
    assert taken[0] >= weights
    assert taken[0] - taken[1] >= 0.5 * weights  # of the 0.73 that 8.5 bits leave out; some is lost in the heap
