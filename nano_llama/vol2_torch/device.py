"""Which device a name means. Not here: number formats and settings of training. Tests: tests/vol2/test_device.py."""

import torch

from nano_llama.core.errors import EnvironmentFault, UserError

KNOWN = "Known: auto, cpu, cuda, cuda:1 (the second GPU), mps."


def resolve_device(name: str) -> torch.device:
    """ "auto": the first GPU, Apple's, or the CPU; else the device of that name.

    Raises UserError for a name we do not compute on, EnvironmentFault for a device this machine does not have.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"There is no device {name!r}.", hint=KNOWN) from None
    present = {"cpu": True, "cuda": cuda, "mps": mps}
    if device.type not in present:
        raise UserError(f"The device {name!r} is not one we compute on.", hint=KNOWN)
    if not present[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise EnvironmentFault(
            f"This PyTorch ({torch.__version__}) finds no device {name!r} here.",
            hint="Use --device cpu, or install a PyTorch built for your GPU (https://pytorch.org/get-started).",
        )
    return device
