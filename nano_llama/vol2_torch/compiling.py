"""torch.compile where it pays: fused layers keep their intermediate results in cache.

Not the whole model is compiled but one layer, whose code all layers share: 4 s instead of 45 s for eight layers, at
the same speed (dev/LOG.md). Tests: tests/vol2/test_compiling.py.
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
from nano_llama.vol2_torch.optim.muon import Orthogonalize, orthogonalize
from nano_llama.vol2_torch.vision.model import VisionLanguageModel

# From here on a run makes up for the 10 to 20 s that compiling takes with a cold cache.
PAYS_MINUTES = 2.0  # of a run by the clock
PAYS_FLOPS = {"cpu": 1e13, "cuda": 5e15}  # of a run by steps: about a minute's work


def compile_layers(model: Llama | VisionLanguageModel) -> None:
    """Let the model's layers run compiled; each new batch shape is compiled when it first occurs."""
    for layer in model.layers:
        layer.compile(dynamic=False)


def leave_uncompiled(model: Llama | VisionLanguageModel) -> None:
    """Undo `compile_layers`."""
    for layer in model.layers:
        layer._compiled_call_impl = None


def compile_loss(head_loss: HeadLoss) -> HeadLoss:
    """The head's loss, compiled: it makes fewer passes over the logits, a model's largest tensor."""
    return torch.compile(head_loss, dynamic=False)


def compiled_orthogonalize(settings: TrainSettings, device: torch.device) -> Orthogonalize:
    """Muon's function, compiled where the user asked for compiling and matrices are multiplied on a GPU: what stands
    between the products is one kernel then. On a CPU the products take the time. Not with compile = auto yet, as it has
    been measured on no GPU."""
    if settings.compile != "on" or device.type != "cuda":
        return orthogonalize
    return torch.compile(orthogonalize, dynamic=False)


def wants_compile(settings: TrainSettings, num_parameters: int, device: torch.device) -> tuple[bool, str]:
    """Whether to compile, and a notice for the user if it is wanted but not possible.

    A function of the settings and the machine alone, so that the same run takes the same path each time. Raises
    EnvironmentFault for compile = on where no compiler is found.
    """
    if settings.compile == "off" or (settings.compile == "auto" and not pays(settings, num_parameters, device)):
        return False, ""
    problem = compiler_problem(device)
    if problem and settings.compile == "on":
        raise EnvironmentFault(f"compile = on: {problem}.", hint="Install it, or train with --compile off.")
    return not problem, f"The model is not compiled because {problem}; training is slower." if problem else ""


def pays(settings: TrainSettings, num_parameters: int, device: torch.device) -> bool:
    """Whether a run is long enough to make up for the time that compiling takes."""
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
