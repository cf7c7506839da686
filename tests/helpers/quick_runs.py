"""Training runs without what takes longer than all else in a small one: drawing loss.png, and measuring the device."""

import sys
from pathlib import Path

from nano_llama.training import plots


def leave_pictures_out(set_attribute=setattr):
    """From now on a picture is an empty file."""
    set_attribute(plots, "_save", lambda draw, path, caption, dark: Path(path).touch())


def measure_peaks_briefly(set_attribute=setattr):
    """One small matrix product in place of 0.15 s of large ones, in processes that train with PyTorch."""
    if module := sys.modules.get("nano_llama.vol2_torch.peak_flops"):
        set_attribute(module, "SECONDS", 0.0)
