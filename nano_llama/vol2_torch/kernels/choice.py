"""Which kernels a run computes with, by its settings `attention` and `kernels`.

    attention  sdpa     PyTorch's scaled_dot_product_attention
               triton   flash_attention.py, which keeps to documents without a mask of T x T
               auto     sdpa; on a card what is faster there at the run's own shape, once PROVED_ON_A_CARD
    kernels    torch    PyTorch's operators; where layers are compiled, torch.compile fuses them
               triton   rmsnorm.py, rope.py, swiglu.py and cross_entropy.py, compiled layers or not

Each kernel is first compared with its reference on the run's device (self_check.py); what fails is left out, and said.
This module imports no Triton: that is done where a setting asks for it. Tests: tests/vol2/kernels/test_choice.py.
"""

import importlib.util
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any

import torch

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import NanoLlamaError
from nano_llama.core.variants import require_llama
from nano_llama.training.backend import Notice
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.kernels.flash_attention import HEAD_DIMS
from nano_llama.vol2_torch.kernels.launch import check_tensors
from nano_llama.vol2_torch.loss import HeadLoss
from nano_llama.vol2_torch.model import Llama

ATTENTION = "flash_attention"
FUSED = ("rmsnorm", "rope", "swiglu", "cross_entropy")

# bench/gpu.py has not passed on a card yet. Until it has, `auto` measures nothing.
PROVED_ON_A_CARD = False

Seconds = dict[str, float]  # of attention forward and backward, by "sdpa" and "triton"


@dataclass(frozen=True)
class Kernels:
    """Those of self_check.py that a run computes with. figures: what metrics.jsonl says of them."""

    names: frozenset[str] = frozenset()
    figures: dict[str, Any] = field(default_factory=dict)

    def put_into(self, model: Llama, dtype: torch.dtype) -> None:
        """From now on the model computes with them. dtype: of the run's matrix products."""
        if self.names:
            from nano_llama.vol2_torch.kernels.in_model import use_kernels

            use_kernels(model, self.names, dtype)

    @property
    def head_loss(self) -> HeadLoss | None:
        """In place of loss.py's; None: those."""
        if "cross_entropy" not in self.names:
            return None
        from nano_llama.vol2_torch.kernels.cross_entropy import head_loss_by_kernel

        return head_loss_by_kernel


PLAIN = Kernels()


def wanted(settings: TrainSettings) -> frozenset[str]:
    """The kernels that the settings ask for by name."""
    attention = {ATTENTION} if settings.attention == "triton" else set()
    return frozenset(attention | (set(FUSED) if settings.kernels == "triton" else set()))


def check_kernels(settings: TrainSettings, place: torch.device, dtype: torch.dtype = torch.float32) -> None:
    """Raise UserError or EnvironmentFault where kernels that the settings ask for cannot run here, in this format."""
    check_variant(settings, settings)
    for name in wanted(settings):
        setting, usual = ("attention", "sdpa") if name == ATTENTION else ("kernels", "torch")
        try:
            check_tensors(f"{setting} = triton: {name}", torch.empty(0, device=place, dtype=dtype))
        except NanoLlamaError as error:
            raise type(error)(error.message, hint=f"--{setting} {usual} needs no Triton. {error.hint}") from None


def check_variant(settings: TrainSettings, model: LlamaConfig | TrainSettings) -> None:
    """Raise UserError where kernels that the settings ask for compute LLaMA's form alone, and the model has another."""
    for setting, usual, names in (
        ("attention", "sdpa", ("sliding_window",)),
        ("kernels", "torch", ("hidden_act", "norm_placement")),
    ):
        if getattr(settings, setting) == "triton":
            require_llama(model, f"{setting} = 'triton'", names, hint=f"Use --{setting} {usual}.")


def choose_kernels(
    settings: TrainSettings, config: LlamaConfig, place: torch.device, dtype: torch.dtype, notice: Notice,
    *, check: Callable[..., set[str]] | None = None, seconds: Callable[..., Seconds] | None = None,
    proved: bool = PROVED_ON_A_CARD,
) -> Kernels:  # fmt: skip
    """Compare what the settings ask for with its references, and measure where `auto` does.

    dtype: of the run's matrix products. check, seconds: by default `agreeing_kernels` and timing.py's
    `attention_seconds`. proved: as above. Raises as `check_kernels`.
    """
    check_variant(settings, config)
    names = wanted(settings)
    measuring = settings.attention == "auto" and proved and may_measure(settings, config, place)
    if not names and not measuring:
        return PLAIN
    check_kernels(settings, place, dtype)
    tried = names | {ATTENTION} if measuring else names
    agreeing = (check or agreeing_kernels)(tried, config, place, dtype, notice)
    figures: dict[str, Any] = {}
    if measuring and ATTENTION in agreeing:
        took = (seconds or measured_seconds)(config, settings, place, dtype)
        agreeing -= {ATTENTION} if took["sdpa"] <= took["triton"] else set()
        figures["attention_ms"] = {name: round(1e3 * value, 3) for name, value in took.items()}
        notice(said(took))
    if settings.attention == "triton" or measuring:
        figures["attention"] = "triton" if ATTENTION in agreeing else "sdpa"
    if settings.kernels == "triton":
        figures["kernels"] = sorted(agreeing - {ATTENTION})
    return Kernels(frozenset(agreeing), figures)


def may_measure(settings: TrainSettings, config: LlamaConfig, place: torch.device) -> bool:
    """On a card alone that has both forms; not on a mesh, whose ranks might find differently, and not where the same
    settings must give the same bits: a clock would decide on them. Nor with a sliding window, which ours has not."""
    if place.type != "cuda" or settings.mesh or settings.deterministic == "on" or config.sliding_window is not None:
        return False
    return config.head_dim in HEAD_DIMS and importlib.util.find_spec("triton") is not None


def agreeing_kernels(
    names: Set[str], config: LlamaConfig, place: torch.device, dtype: torch.dtype, notice: Notice
) -> set[str]:
    """Of these kernels those that agree with their references; each of the others is said once."""
    from nano_llama.vol2_torch.kernels.self_check import checks, problem

    agreeing = set()
    for name, check in checks(config, place, dtype).items():
        if name in names:
            why = problem(check, place, dtype)
            if why:
                notice(f"The kernel {name} is not used: {why}.")
            else:
                agreeing.add(name)
    return agreeing


def measured_seconds(*run: Any) -> Seconds:
    from nano_llama.vol2_torch.kernels.timing import attention_seconds

    return attention_seconds(*run)


def said(took: Seconds) -> str:
    """What was measured, in one sentence, the faster first."""
    (first, fast), (second, slow) = sorted(took.items(), key=lambda item: item[1])
    return f"Attention: {first}, {1e3 * fast:.2f} ms a layer forward and backward; {second} takes {1e3 * slow:.2f} ms."
