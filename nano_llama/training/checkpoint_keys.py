"""The names of a checkpoint's training tensors, one scheme for both volumes.

    model.norm.weight/exp_avg    what belongs to a parameter: PARAMETER/KEY
    ema.steps                    what belongs to none: a step count, the state of a random generator

Version 2 of the checkpoint, written by nano-llama 0.1, named Volume 1's the other way round: exp_avg.model.norm.weight.
Tests: tests/training/test_checkpoint_keys.py, tests/parity/test_old_runs.py.
"""

from collections.abc import Collection, Iterable

TRAINED = "trained"  # the trained weights themselves, where the saved model is their average
EMA_STEPS = "ema.steps"


def join(parameter: str, key: str) -> str:
    return f"{parameter}/{key}"


def split(name: str) -> tuple[str, str]:
    """ "model.norm.weight/exp_avg" -> ("model.norm.weight", "exp_avg"); ("", "ema.steps") if it has no parameter."""
    parameter, _, key = name.rpartition("/")
    return parameter, key


def from_prefixed(names: Iterable[str], parameters: Collection[str]) -> dict[str, str]:
    """Old name -> new name: "adamw.sums.model.norm.weight" -> "model.norm.weight/adamw.sums"; others stay.

    Volume 1's optimizers name their arrays so, too.
    """
    return {name: _from_prefixed(name, parameters) for name in names}


def _from_prefixed(name: str, parameters: Collection[str]) -> str:
    dots = (place for place, letter in enumerate(name) if letter == ".")
    for place in dots:
        if name[place + 1 :] in parameters:
            return join(name[place + 1 :], name[:place])
    return name
