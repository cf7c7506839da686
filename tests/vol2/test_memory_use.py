"""What autograd keeps for the backward pass is what the preflight predicts, byte for byte but for small vectors."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.config import LlamaConfig  # noqa: E402
from nano_llama.training.preflight import activation_bytes_per_token  # noqa: E402
from nano_llama.vol2_torch import Llama, peak_flops  # noqa: E402
from nano_llama.vol2_torch.peak_flops import measured_peak  # noqa: E402
from nano_llama.vol2_torch.precision import Precision  # noqa: E402

B, T = 4, 32


def kept_bytes(config, precision, checkpointing):
    """Of all tensors saved by the hidden states' graph, the weights and their rounded copies left out."""
    model, kept = Llama.init(config), {}
    model.train_with(dropout=0.0, activation_checkpointing=checkpointing)
    shapes = {tuple(parameter.shape) for parameter in model.parameters()}
    shapes |= {shape[::-1] for shape in shapes}

    def pack(tensor):
        if tuple(tensor.shape) not in shapes:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = torch.zeros(B, T, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), Precision(precision, "cpu").autocast():
        hidden = model.hidden_states(tokens)
    assert hidden.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("precision, compute_bytes", [("fp32", 4), ("bf16", 2)])
@pytest.mark.parametrize("checkpointing", ["none", "full"])
@pytest.mark.parametrize("G", [4, 2])
def test_activations_are_as_predicted(precision, compute_bytes, checkpointing, G):
    shape = {
        "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": G, "intermediate_size": 176,
        "vocab_size": 50, "max_position_embeddings": T,
    }  # fmt: skip
    few, many = LlamaConfig(num_hidden_layers=2, **shape), LlamaConfig(num_hidden_layers=6, **shape)
    kept = [kept_bytes(config, precision, checkpointing) for config in (few, many)]
    attention_bytes = Precision(precision, "cpu").attention_bytes(T)
    predicted = [
        B * T * activation_bytes_per_token(config, checkpointing, compute_bytes, attention_bytes)
        for config in (few, many)
    ]
    assert kept[1] - kept[0] == pytest.approx(predicted[1] - predicted[0], rel=0.03)


MEASURE = """
import sys, tempfile
from pathlib import Path
from nano_llama.core.machine import peak_resident_bytes
from nano_llama.training.preflight import COPY
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.trainer import Trainer
checkpointing, precision, data = sys.argv[1:]
settings = TrainSettings(
    data=data, tokenizer="char", model="char", max_steps=2, evaluations=0, precision=precision, compile="off",
    device="cpu", batch_size=8, context=32, num_threads=1,
)
with tempfile.TemporaryDirectory() as folder:
    Trainer(settings, Path(folder) / "small").fit()  # whatever is loaded at first is loaded
    before = peak_resident_bytes()
    large = settings.replace(hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=1376,
        context=256, activation_checkpointing=checkpointing)
    trainer = Trainer(large, Path(folder) / "large")
    for _ in range(2):
        trainer.train_step([next(trainer.batches)], 1e-3)
    print(peak_resident_bytes() - before, trainer.expected.total_memory - trainer.expected.memory[COPY])
"""


@pytest.mark.slow  # four processes that import torch and take real memory
@pytest.mark.parametrize(
    ("precision", "checkpointing", "within"),
    [("fp32", "none", 0.2), ("bf16", "full", 0.2), ("bf16", "none", 0.35), ("fp32", "full", 0.35)],
)
def test_process_memory_is_as_predicted(tale, precision, checkpointing, within):
    """Measured: weights, gradients, optimizer and activations of a step of 2,048 tokens, as the system counts them.

    Recomputed in float32 it took 1.30 times as much, in bfloat16 without recomputing 1.23 times (dev/LOG.md): what an
    allocator loses is not part of the prediction; the preflight's MARGIN is that large for its sake.
    """
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, checkpointing, precision, str(tale)], capture_output=True, text=True, check=True
    )
    taken, predicted = map(int, run.stdout.split())
    assert taken == pytest.approx(predicted, rel=within)


MEASURE_FINETUNING = """
import sys, tempfile
from pathlib import Path
from helpers.finetuning import save_chat_model, save_questions
from nano_llama.core.machine import peak_resident_bytes
from nano_llama.training.finetune import FinetuneSettings
from nano_llama.training.preflight import COPY
from nano_llama.vol2_torch.trainer import Trainer
adapter, quantization, precision, checkpointing = sys.argv[1:]
shape = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1408}
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    data = save_questions(folder / "chats.jsonl", 400)
    small = save_chat_model(folder / "small", intermediate_size=64)
    large = save_chat_model(folder / "large", **shape, max_position_embeddings=256)
    settings = FinetuneSettings(
        data=str(data), init_from=str(small), adapter=adapter, base_quantization=quantization or None, max_steps=2,
        evaluations=0, samples=0, precision=precision, device="cpu", batch_size=8, context=96, num_threads=1,
        activation_checkpointing=checkpointing,
    )
    Trainer(settings, folder / "first").fit()  # whatever is loaded at first is loaded
    before = peak_resident_bytes()
    trainer = Trainer(settings.replace(init_from=str(large), context=256), folder / "second")
    for _ in range(2):
        trainer.train_step([next(trainer.batches)], 1e-3)
    print(peak_resident_bytes() - before, trainer.expected.total_memory - trainer.expected.memory[COPY])
"""


@pytest.mark.slow  # processes that import torch and take real memory
@pytest.mark.parametrize(
    ("adapter", "quantization", "precision", "checkpointing"),
    [
        ("lora", "", "fp32", "full"), ("lora", "", "bf16", "none"), ("dora", "", "bf16", "full"),
        ("lora", "int8", "bf16", "full"), ("lora", "int4", "fp32", "full"),
    ],
)  # fmt: skip
def test_fine_tuning_takes_the_memory_that_was_predicted(adapter, quantization, precision, checkpointing):
    """Measured where every large block is mapped by itself, so that glibc's heap has no holes.

    As it is, this run of 2,048 tokens beside small weights took up to twice as much in float32 (dev/LOG.md); to map
    each block costs a third of the speed.
    """
    run = subprocess.run(
        [sys.executable, "-c", MEASURE_FINETUNING, adapter, quantization, precision, checkpointing],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_MMAP_THRESHOLD_": str(2**20)},
    )  # fmt: skip
    taken, predicted = map(int, run.stdout.split())
    assert 0.7 * predicted <= taken <= 1.1 * predicted


def test_a_product_is_timed_until_the_device_has_finished(monkeypatch):
    clock = iter([3.0, 3.25])
    product = torch.full((4, 4), 2.0)
    read = []
    monkeypatch.setattr(torch.Tensor, "item", lambda self: read.append(self.clone()) or 2.0)
    monkeypatch.setattr(peak_flops, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert peak_flops._seconds(product, product) == 0.25
    assert len(read) == 1 and float(read[0].numpy()) == 16.0, "an entry of the product is waited for"


@pytest.mark.parametrize(("speed", "largest"), [(1e12, 1536), (3e8, 192)])
def test_a_slow_dtype_is_measured_with_small_products(monkeypatch, speed, largest):
    sizes = []

    def seconds(a, b):
        sizes.append(len(a))
        return 2.0 * len(a) ** 3 / speed

    monkeypatch.setattr(peak_flops, "_seconds", seconds)
    monkeypatch.setattr(peak_flops, "SECONDS", 0.15)  # 0 in tests (helpers/quick_runs.py)
    assert measured_peak(torch.device("cpu"), torch.bfloat16) == pytest.approx(speed)
    assert max(sizes) == largest
