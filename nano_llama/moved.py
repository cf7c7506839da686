"""Modules under the names they had in version 0.1: importable for one more version, with a DeprecationWarning.

`import nano_llama.core.data.readers` gives the very module `nano_llama.data.readers`, not a copy: its classes are
the same. Tests: tests/test_moved.py.
"""

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader

# A module, or a package with all that is in it -> where it is now.
MOVED = {
    "nano_llama.core.training": "nano_llama.training",
    "nano_llama.core.data": "nano_llama.data",
    "nano_llama.core.tokenizer": "nano_llama.tokenizer",
    "nano_llama.core.formats": "nano_llama.formats",
    "nano_llama.core.settings": "nano_llama.core.env",
    "nano_llama.core.cores": "nano_llama.core.machine",
    "nano_llama.core.memory": "nano_llama.core.machine",
    "nano_llama.cli.machine": "nano_llama.core.machine",
    "nano_llama.vol1_numpy.ops.tables": "nano_llama.vol1_numpy.ops.registry",
    "nano_llama.vol1_numpy.study_config": "nano_llama.studies.study_config",
    "nano_llama.vol1_numpy.study_model": "nano_llama.studies.study_model",
    "nano_llama.vol1_numpy.train": "nano_llama.vol1_numpy.trainer",
    "nano_llama.vol1_numpy.parallel": "nano_llama.vol1_numpy.data_parallel",
    "nano_llama.vol2_torch.peak": "nano_llama.vol2_torch.peak_flops",
    "nano_llama.vol2_torch.recompute": "nano_llama.vol2_torch.activation_checkpointing",
    "nano_llama.vol2_torch.scaling": "nano_llama.vol2_torch.loss_scaling",
    "nano_llama.vol3_engine.quantization": "nano_llama.formats.quantization_scheme",
    "nano_llama.vol3_engine.runner.cpu": "nano_llama.vol3_engine.cpu.runner",
    "nano_llama.verify.suspects": "nano_llama.verify.permutation_check",
    "nano_llama.verify.fidelity": "nano_llama.verify.divergence",
}


def new_name(name: str) -> str | None:
    """The present name of a module that moved; None for all others."""
    for old, new in MOVED.items():
        if name == old or name.startswith(old + "."):
            return new + name.removeprefix(old)
    return None


class Forwarding(MetaPathFinder, Loader):
    """Finds what no longer lies where it is asked for.

    It stands first on `sys.meta_path`: the usual finder would look for a submodule in the folder of the package that
    the old name stands for, and load a second copy of it.
    """

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if new_name(fullname) else None

    def create_module(self, spec):
        name = new_name(spec.name)
        assert name is not None
        warnings.warn(f"{spec.name} is now {name}; the old name goes with the next version.", DeprecationWarning, 2)
        module = import_module(name)
        spec.loader_state = module.__spec__  # importing under another name writes its own over it
        return module

    def exec_module(self, module) -> None:
        module.__spec__ = module.__spec__.loader_state


def forward_old_names() -> None:
    """Make the old names importable. Calling it again does nothing."""
    if not any(isinstance(finder, Forwarding) for finder in sys.meta_path):
        sys.meta_path.insert(0, Forwarding())
