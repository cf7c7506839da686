"""Studies: small seeded experiments, a few minutes each; every one draws a picture and says what it found.

Tests: tests/studies/test_registry.py.

    from nano_llama.studies import STUDIES, run_study
    finding = run_study("online-softmax", out="pictures", seed=0)
    print(finding.text); finding.picture
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from nano_llama.core.errors import UserError
from nano_llama.core.figures import look
from nano_llama.studies.finding import Finding

__all__ = ["STUDIES", "Finding", "Study", "run_study"]


class Study(NamedTuple):
    """A row of the table: one line of help, and the module whose `run(picture, seed, quick)` returns a Finding."""

    help: str
    module: str

    def load(self) -> Callable[[Path, int, bool], Finding]:
        return import_module(self.module).run


STUDIES = {
    "norm-placement": Study(
        "Pre-LN against Post-LN: gradients per layer and with depth, training with and without warmup.",
        "nano_llama.studies.norm_placement",
    ),
    "ingredients": Study(
        "What 1/sqrt(K), the residuals, the scale of the fresh weights and the norm each do: take one out and see.",
        "nano_llama.studies.ingredients",
    ),
    "online-softmax": Study(
        "Naive against online softmax: error and memory by sequence length.",
        "nano_llama.studies.online_softmax",
    ),
    "autodiff": Study(
        "Derivatives by hand against automatic ones: time and memory of every op, NumPy beside PyTorch.",
        "nano_llama.studies.autodiff",
    ),
    "parallel": Study(
        "A model spread over processes, in five ways: what a rank sends in a step, counted and by formula, and holds.",
        "nano_llama.studies.parallel",
    ),
}


def run_study(
    name: str, out: str | Path = ".", seed: int = 0, quick: bool = False, *, format: str = "png", dark: bool = False
) -> Finding:
    """Run the study `name` and draw its picture to out/NAME.png. `quick`: seconds instead of minutes, rougher figures.

    format: png or svg. dark: light lines on black, for a dark slide.
    Raises UserError for an unknown name, EnvironmentFault where the picture cannot be written or a package is missing.
    """
    if name not in STUDIES:
        raise UserError(f"Unknown study {name!r}.", hint=f"Choose from {', '.join(STUDIES)}.")
    run = STUDIES[name].load()
    with look(dark):
        return run(Path(out) / f"{name}.{format}", seed, quick)
