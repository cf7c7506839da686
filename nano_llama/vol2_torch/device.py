"""The torch device that a name means. Tests: tests/vol2/test_device.py."""

import torch

from nano_llama.core.errors import EnvironmentFault, UserError

CHOICES = "Choose auto, cpu, cuda, cuda:1 (the second GPU) or mps."


def resolve_device(name: str) -> torch.device:
    """ "auto": the first CUDA GPU, else Apple's, else the CPU; any other name: that device.

    Raises UserError for a name that is unknown or not supported, EnvironmentFault for a device that is not here.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"Unknown device {name!r}.", hint=CHOICES) from None
    present = {"cpu": True, "cuda": cuda, "mps": mps}
    if device.type not in present:
        raise UserError(f"The device {name!r} is not supported.", hint=CHOICES)
    if not present[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise EnvironmentFault(
            f"This PyTorch ({torch.__version__}) finds no device {name!r} on this machine.",
            hint="Use --device cpu, or install a PyTorch built for your GPU (https://pytorch.org/get-started).",
        )
    return device
