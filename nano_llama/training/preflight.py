"""Preflight: what a run will need, before its first step: memory by part, tokens, FLOPs and time; or a refusal.

Activations are counted as autograd saves them (vol2_torch/model.py, line by line below), at the moment when the last
layer's backward pass starts: everything saved is there, and the logits. What the allocator wastes and the process
itself (Python, libraries) come on top; MARGIN allows for the former.
Tests: tests/training/test_preflight.py, tests/vol2/test_memory_use.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.lora import adapted_modules, adapter_shapes
from nano_llama.core.names import LM_HEAD, is_hidden_matrix, parameter_shapes
from nano_llama.core.units import rough_time_text, size_text
from nano_llama.core.vision.config import ModelConfig, VisionLanguageConfig, language_config
from nano_llama.core.vision.names import (
    PROJECTOR,
    language_model,
    text_name,
    vision_language_shapes,
    vision_shapes,
)
from nano_llama.formats.quantization_scheme import Scheme
from nano_llama.training.flops import flops_per_token
from nano_llama.training.settings import TrainSettings

ONE_MOMENT = ("lion", "momentum", "nesterov")
WIDE = 4  # bytes of float32: weights, gradients, optimizer, the residual stream, the loss
MARGIN = 1.3  # for what the allocator wastes: processes took up to this many times the prediction (dev/LOG.md)
COPY = "checkpoint's copy"
USUAL_MFU = 0.4  # assumed for expected times

LEAST_PEAK = 5e9  # FLOP/s that any machine's matrix products reach


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What is expected of a run. `memory`: part -> bytes."""

    parameters: int  # that are trained
    memory: dict[str, int]
    tokens: int | None  # of the whole run; None: it ends by the clock
    flops_per_token: float
    peak_flops: float | None  # FLOP/s of the device; None: not measured

    @property
    def total_memory(self) -> int:
        return sum(self.memory.values())

    @property
    def seconds(self) -> float | None:
        """Of training, from the start; None if tokens or speed are unknown."""
        if self.tokens is None or self.peak_flops is None:
            return None
        return self.step_seconds(self.tokens)

    def step_seconds(self, tokens: int) -> float:
        """About how long a step of this many tokens takes; 0 if the speed is unknown."""
        return tokens * self.flops_per_token / (USUAL_MFU * self.peak_flops) if self.peak_flops else 0.0

    def mfu(self, tokens_per_second: float) -> float | None:
        """Model FLOPs utilization at this speed: useful FLOP/s over the measured peak, 0 to 1; None: not measured."""
        return tokens_per_second * self.flops_per_token / self.peak_flops if self.peak_flops else None

    def reaching(self, tokens_per_second: float) -> "Preflight":
        """Training has reached this speed: a peak that was measured lower was disturbed, so it is raised to it."""
        reached = tokens_per_second * self.flops_per_token
        return replace(self, peak_flops=reached) if self.peak_flops and reached > self.peak_flops else self

    def lines(self) -> list[str]:
        """As text."""
        parts = ", ".join(f"{name} {size_text(size)}" for name, size in self.memory.items())
        work = f"{self.flops_per_token:.3g} FLOPs per token"
        if self.tokens is not None:
            work = f"{self.tokens:,} tokens, {self.tokens * self.flops_per_token:.3g} FLOPs"
        if self.peak_flops and self.peak_flops > LEAST_PEAK:  # less was measured beside busy programs
            work += f" at up to {self.peak_flops / 1e9:,.0f} GFLOP/s"
            if self.seconds is not None:
                work += f": about {rough_time_text(self.seconds)}"
        return [f"memory: about {size_text(self.total_memory)} ({parts})", f"work: {work}"]


def preflight(
    config: ModelConfig, settings: TrainSettings, *, compute_bytes: int = WIDE, peak_flops: float | None = None,
    attention_bytes: int | None = None, logits_limit: int | None = None, host_copy: bool = False,
) -> Preflight:  # fmt: skip
    """What is expected of this run.

    compute_bytes: bytes per number in the factors of matrix products (2 in half precision). attention_bytes: in what
    attention reads and makes; None: compute_bytes. logits_limit: the most bytes of float32 logits that exist at once,
    if the engine makes them in parts. host_copy: the copy that a checkpoint is written from lies in host memory, away
    from the model (on a GPU), and is not counted.
    """
    memory = memory_by_part(config, settings, compute_bytes, logits_limit, attention_bytes)
    if host_copy:
        del memory[COPY]
    return Preflight(
        parameters=num_trained(config, settings),
        memory=memory,
        tokens=None if settings.max_steps is None else settings.max_steps * settings.tokens_per_step,
        flops_per_token=flops_per_token(
            config, settings.context, frozen=settings.lora is not None, frozen_encoder=settings.freeze_encoder
        ),
        peak_flops=peak_flops,
    )


def memory_by_part(
    config: ModelConfig, settings: TrainSettings, compute_bytes: int = WIDE, logits_limit: int | None = None,
    attention_bytes: int | None = None,
) -> dict[str, int]:  # fmt: skip
    """Bytes by part, as the module's header says."""
    text = language_config(config)
    N, V, D = settings.batch_size * settings.context, text.vocab_size, text.hidden_size
    trained = WIDE * num_trained(config, settings)
    logits = N * V
    if logits_limit is not None:
        logits = min(logits, logits_limit // WIDE)
    rounded = compute_bytes if compute_bytes < WIDE else 0  # per number, of a copy that the products read
    kept = activation_bytes_per_token(text, settings.activation_checkpointing, compute_bytes, attention_bytes)
    return {
        "weights": weight_bytes(config, settings, compute_bytes),
        **({"adapter": WIDE * _numbers(adapter_shapes(settings.lora, text))} if settings.lora else {}),
        "gradients": trained,
        "optimizer": optimizer_bytes(config, settings),
        **({"average": trained} if settings.ema else {}),
        COPY: checkpoint_bytes(config, settings),
        "activations": N * (kept + 2 * WIDE * D)
        + (0 if settings.freeze_encoder else settings.batch_size * encoder_bytes_per_image(config)),
        # the gradients of one layer's activations
        "working": N * layer_bytes_per_token(text, compute_bytes, attention_bytes),
        "logits": logits * (2 * WIDE + rounded),  # and their gradient
    }


def weight_bytes(config: ModelConfig, settings: TrainSettings, compute_bytes: int = WIDE) -> int:
    """The weights as they are held, and the copies that products read: of all, or of one frozen matrix at a time.

    Frozen matrices of the layers are held as products read them, or as blocks; the largest copy is the head's. Of a
    model that reads images they are held as they are trained.
    """
    rounded = compute_bytes if compute_bytes < WIDE else 0
    if settings.lora is None or isinstance(config, VisionLanguageConfig):
        return (WIDE + rounded) * config.num_parameters
    quantization = settings.base_quantization
    kinds = Scheme.parse(quantization).kinds(config) if quantization else {}
    adapted = {f"{module}.weight" for module in adapted_modules(settings.lora, config)} - {LM_HEAD}
    held = 0.0
    for name, shape in parameter_shapes(config).items():
        number = kinds[name].bits_per_weight / 8 if name in kinds else compute_bytes if name in adapted else WIDE
        held += math.prod(shape) * number
    return int(held) + config.vocab_size * config.hidden_size * (rounded + (WIDE if quantization else 0))


def checkpoint_bytes(config: ModelConfig, settings: TrainSettings) -> int:
    """The size of a checkpoint, which checkpoint_writer.py copies in memory."""
    trained = WIDE * num_trained(config, settings)
    return trained * (2 if keeps_average(settings) else 1) + optimizer_bytes(config, settings)


def trained_shapes(config: ModelConfig, settings: TrainSettings) -> Mapping[str, tuple[int, ...]]:
    """name -> shape of what is trained: the weights, or an adapter's. With images, of each part or none of it."""
    if isinstance(config, VisionLanguageConfig):
        shapes = vision_shapes(config)
        if settings.freeze_encoder:
            shapes = {PROJECTOR: shapes[PROJECTOR]}
        if settings.lora is not None:
            factors = adapter_shapes(settings.lora, config.text_config)
            return shapes | {text_name(name): shape for name, shape in factors.items()}
        return shapes | language_model(vision_language_shapes(config)) if settings.language_model_lr else shapes
    return parameter_shapes(config) if settings.lora is None else adapter_shapes(settings.lora, config)


def num_trained(config: ModelConfig, settings: TrainSettings) -> int:
    return _numbers(trained_shapes(config, settings))


def _numbers(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(map(math.prod, shapes.values()))


def optimizer_bytes(config: ModelConfig, settings: TrainSettings) -> int:
    """Two moments per parameter as in AdamW, or what the optimizer keeps instead."""
    numbers = 0
    for name, shape in trained_shapes(config, settings).items():
        size = math.prod(shape)
        if settings.optimizer == "adafactor":
            numbers += sum(shape) if len(shape) == 2 else size  # a number per row and per column
        elif settings.optimizer == "sgd":
            continue
        elif settings.optimizer in ONE_MOMENT or (settings.optimizer == "muon" and is_hidden_matrix(name)):
            numbers += size
        else:
            numbers += 2 * size
    return WIDE * numbers


def keeps_average(settings: TrainSettings) -> bool:
    """Whether the model that is evaluated and saved is an average of the weights that are trained."""
    return settings.ema > 0 or settings.optimizer == "schedulefree"


def activation_bytes_per_token(
    config: LlamaConfig, checkpointing: str, compute_bytes: int = WIDE, attention_bytes: int | None = None
) -> int:
    """What all layers save for the backward pass, per token."""
    D, F = config.hidden_size, config.intermediate_size
    q = config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    everything = layer_bytes_per_token(config, compute_bytes, attention_bytes)
    # q, k, v, attention; gate, up, o, down
    products = (attention_bytes or compute_bytes) * (2 * q + 2 * kv) + compute_bytes * (2 * F + 2 * D)
    kept = {"none": everything, "selective": WIDE * D + products, "full": WIDE * D}[checkpointing]
    again = 0 if checkpointing == "none" else everything - kept  # one layer at a time is recomputed whole
    return config.num_hidden_layers * kept + again


def layer_bytes_per_token(config: LlamaConfig, compute_bytes: int = WIDE, attention_bytes: int | None = None) -> int:
    """All that one layer computes and its backward pass reads.

    In float32: the residual stream before each norm, and after it. Factors of matrix products: copies of the normed
    stream; q, k, v, attention, and that in o's layout; gate, up, silu and their product.
    """
    D, F = config.hidden_size, config.intermediate_size
    q = config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    copies = 2 if compute_bytes == WIDE else 5  # of the normed stream: q, k, v, gate and up each round their own
    return (
        WIDE * 4 * D + (attention_bytes or compute_bytes) * (2 * q + 2 * kv) + compute_bytes * (copies * D + q + 4 * F)
    )


def encoder_bytes_per_image(config: ModelConfig) -> int:
    """What an image encoder saves for the backward pass, in float32: per layer the residual stream before and after
    each norm; q, k, v, attention and its output; fc1 and gelu."""
    if not isinstance(config, VisionLanguageConfig):
        return 0
    vision = config.vision_config
    per_patch = 9 * vision.hidden_size + 2 * vision.intermediate_size
    return WIDE * vision.num_patches * vision.num_hidden_layers * per_patch


def check_memory(expected: Preflight, settings: TrainSettings, available: int | None) -> None:
    """Raise UserError, naming the flag to change, when the run does not fit into `available` bytes (None: unknown)."""
    needed = int(MARGIN * expected.total_memory)
    if available is None or needed <= available:
        return
    parts = ", ".join(f"{name} {size_text(size)}" for name, size in expected.memory.items())
    raise UserError(
        f"This run needs about {size_text(needed)} of memory, and {size_text(available)} is free: {parts}.",
        hint=_advice(expected, settings, available),
    )


def _advice(expected: Preflight, settings: TrainSettings, available: int) -> str:
    moving = sum(expected.memory[part] for part in ("activations", "working", "logits"))
    standing = MARGIN * (expected.total_memory - moving)
    if standing > available:
        return "The model is too large for this machine: use a smaller one, for example  --model mini"
    share = (available - standing) / (MARGIN * moving)
    batch = int(settings.batch_size * share)
    if batch >= 1:
        more = settings.accumulate * -(-settings.batch_size // batch)
        return f"Use smaller batches, and more of them per step:  --batch-size {batch} --accumulate {more}"
    if settings.activation_checkpointing != "full":
        return "Recompute activations:  --activation-checkpointing full --batch-size 1"
    return f"Use a shorter context:  --context {max(int(settings.context * share * settings.batch_size), 1)}"
