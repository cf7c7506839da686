"""Optimizers by hand, one per file, over {name: array} in place. Read them in the order of the table.

A schedule (training/schedule.py) passes its rate to `step(..., lr=)`. Tests: tests/vol1/, one file per update rule.
"""

from collections.abc import Mapping

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy.optim.adafactor import Adafactor
from nano_llama.vol1_numpy.optim.adam import Adam
from nano_llama.vol1_numpy.optim.adamw import AdamW, PlainAdamW
from nano_llama.vol1_numpy.optim.base import Optimizer
from nano_llama.vol1_numpy.optim.clip import clip_by_global_norm, global_norm
from nano_llama.vol1_numpy.optim.ema import EMA
from nano_llama.vol1_numpy.optim.lion import Lion
from nano_llama.vol1_numpy.optim.momentum import Momentum
from nano_llama.vol1_numpy.optim.muon import Muon
from nano_llama.vol1_numpy.optim.nesterov import Nesterov
from nano_llama.vol1_numpy.optim.sgd import SGD

__all__ = [
    "EMA",
    "OPTIMIZERS",
    "SGD",
    "Adafactor",
    "Adam",
    "AdamW",
    "Lion",
    "Momentum",
    "Muon",
    "Nesterov",
    "Optimizer",
    "PlainAdamW",
    "clip_by_global_norm",
    "global_norm",
    "make_optimizer",
]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adam": Adam,
    "adamw": AdamW,
    "lion": Lion,
    "adafactor": Adafactor,
    "muon": Muon,
}


def make_optimizer(name: str, params: Mapping[str, np.ndarray], lr: float, **options) -> Optimizer:
    """The optimizer `name` of the table, with its options. Raises UserError for an unknown name."""
    if name not in OPTIMIZERS:
        raise UserError(f"Unknown optimizer {name!r} for Volume 1.", hint=f"Choose {', '.join(OPTIMIZERS)}.")
    return OPTIMIZERS[name](params, lr, **options)
