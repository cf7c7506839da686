"""torch.compile where it pays: the model's layers turned into code that keeps its intermediate results in cache.

Not the whole model is compiled but one layer, whose code all layers share: 4 s instead of 45 s for eight layers, and
the same speed (dev/LOG.md). Not here: what is computed (model.py). Tests: tests/vol2/test_compiling.py.
"""

import importlib.util
import os
import shutil

import torch

from nano_llama.core.env import cxx
from nano_llama.core.errors import EnvironmentFault
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.loss import HeadLoss
from nano_llama.vol2_torch.model import Llama

PAYS_MINUTES = 2.0  # a run by the clock so long wins back the 10 to 20 seconds that compiling takes, cache cold
PAYS_FLOPS = {"cpu": 1e13, "cuda": 5e15}  # a run by steps so large: about a minute's work


def compile_layers(model: Llama) -> None:
    """From now on the model's layers run compiled; each new shape of batch is compiled when it first comes."""
    for layer in model.model.layers:
        layer.compile(dynamic=False)


def leave_uncompiled(model: Llama) -> None:
    """Undo `compile_layers`."""
    for layer in model.model.layers:
        layer._compiled_call_impl = None


def compile_loss(head_loss: HeadLoss) -> HeadLoss:
    """The head's loss, compiled: the logits, a model's largest tensor, are gone through fewer times."""
    return torch.compile(head_loss, dynamic=False)


def wants_compile(settings: TrainSettings, num_parameters: int, device: torch.device) -> tuple[bool, str]:
    """Whether to compile, and a remark for the user where it is wished for and cannot be.

    A function of the settings and the machine alone, so that the same run takes the same path each time. Raises
    EnvironmentFault for compile = on where no compiler is found.
    """
    if settings.compile == "off" or (settings.compile == "auto" and not pays(settings, num_parameters, device)):
        return False, ""
    problem = compiler_problem(device)
    if problem and settings.compile == "on":
        raise EnvironmentFault(f"compile = on: {problem}.", hint="Install it, or train with --compile off.")
    return not problem, f"The model is not compiled, for {problem}: training is slower." if problem else ""


def pays(settings: TrainSettings, num_parameters: int, device: torch.device) -> bool:
    """Whether a run is long enough to win back the time of compiling."""
    if settings.max_minutes is not None:
        return device.type in PAYS_FLOPS and settings.max_minutes >= PAYS_MINUTES
    assert settings.max_steps is not None
    flops = 6.0 * num_parameters * settings.tokens_per_step * settings.max_steps
    return flops >= PAYS_FLOPS.get(device.type, float("inf"))


def compiler_problem(device: torch.device) -> str:
    """Why this machine cannot compile for `device`; empty when it can."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package 'triton' is not installed"
    chosen = cxx()
    names = [chosen] if chosen else ["cl"] if os.name == "nt" else ["g++", "clang++"]
    if not any(shutil.which(name) for name in names):
        return f"no C++ compiler was found ({' or '.join(names)})"
    return ""
