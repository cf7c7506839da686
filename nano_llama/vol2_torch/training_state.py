"""What a checkpoint of Volume 2 holds besides the model: optimizer state and random generators, as arrays and back.

Keys: training/checkpoint_keys.py. Tests: tests/vol2/test_trainer_resume.py.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from nano_llama.core.errors import FormatError, UserError
from nano_llama.formats.dtypes import DTYPES
from nano_llama.training.checkpoint_keys import TRAINED, join, split
from nano_llama.vol2_torch.model import to_tensor

RNG, CUDA_RNG = "rng.cpu", "rng.cuda"

Parameters = Mapping[str, nn.Parameter]


def optimizer_tensors(parameters: Parameters, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """Every tensor that the optimizers keep for these parameters. Raises UserError for anything else: one's own may
    keep numbers, which a resumed run would lack.
    """
    kept = {
        join(name, key): value
        for name, parameter in parameters.items()
        for optimizer in optimizers
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    for name, value in kept.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(
                f"The optimizer's state {name} is {value!r:.40}, not a tensor, and cannot be saved.",
                hint="Keep it as a tensor: torch.tensor(...).",
            )
    return kept


def restore_parameters(
    tensors: Mapping[str, np.ndarray], parameters: Parameters, optimizers: Sequence[torch.optim.Optimizer],
    placed: Callable[[nn.Parameter, np.ndarray], torch.Tensor],
) -> None:  # fmt: skip
    """Put the tensors that belong to a parameter into its optimizer's state; `trained` ones into the parameter.

    placed: of a parameter and a whole tensor what lies in this process, a copy.
    """
    owner = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for full_name in tensors:
        name, key = split(full_name)
        if not name:
            continue  # it belongs to no parameter
        if name not in parameters:
            raise FormatError(f"The checkpoint's optimizer has a parameter {name!r} that the model does not have.")
        parameter = parameters[name]
        value = placed(parameter, tensors[full_name])
        if key == TRAINED:
            parameter.data.copy_(value)
        else:
            owner[parameter].state[parameter][key] = value


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """Of the generators that dropout draws from."""
    states = {RNG: torch.get_rng_state()}
    if device.type == "cuda":
        states[CUDA_RNG] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[RNG])
    if device.type == "cuda" and CUDA_RNG in states:
        torch.cuda.set_rng_state(states[CUDA_RNG], device)


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array on the CPU; it shares memory if it lies there already. The reverse of to_tensor."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # which NumPy itself does not know
        return tensor.view(torch.uint16).numpy().view(DTYPES["BF16"])
    return tensor.numpy()


def owned_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor with memory of its own: a checkpoint's arrays are views of a file that may be removed."""
    return to_tensor(np.array(array))
