"""Fully sharded data parallel: each rank keeps a slice of every parameter, gradient and optimizer state.

A layer's parameters are gathered when the forward pass reaches it and dropped behind it, gathered again for the
backward pass, and its gradients leave as slices, summed over the ranks. PyTorch's fully_shard does this by hooks of
the layers; a slice is a DTensor, Shard(0) on mesh["fsdp"]. With dp > 1 each slice has copies, whose gradients are
summed over mesh["dp"] (hybrid sharding): data parallel between machines, sharded within one.
Rajbhandari et al. 2020, "ZeRO" (arXiv 1910.02054), stage 3; Zhao et al. 2023 (arXiv 2304.11277).
Naive form: naive_fsdp.py. Tests: tests/parallel/test_training.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.parallel.mesh import axis_size
from nano_llama.vol2_torch.parallel.stage import Stage


def apply_fsdp(
    model: Llama | Stage, mesh: DeviceMesh, *, keep_gathered: bool = False, products: torch.dtype | None = None
) -> None:
    """Shard the model in place, over mesh["fsdp"] and, in copies, mesh["dp"]. After tensor parallelism, if any.

    Each layer is a group that is gathered as one. Embedding, last norm and head are the root's: a tied matrix
    serves both ends of the model, so that it cannot belong to a group of the embedding's own.
    keep_gathered: from a step's first forward pass to its last backward pass, for a pipeline's many microbatches.
    products: of half precision, what autocast rounds the layers' matrices to: they are gathered so, with half the
    bytes, and their gradients summed in float32. The root's are gathered as they are held: the stream begins with the
    embedding's rows. None: so are the layers'.
    """
    over = mesh["dp", "fsdp"] if axis_size(mesh, "dp") > 1 else mesh["fsdp"]
    rounded = MixedPrecisionPolicy()
    if products is not None:
        rounded = MixedPrecisionPolicy(param_dtype=products, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in model.model.layers:
        fully_shard(layer, mesh=over, reshard_after_forward=not keep_gathered, mp_policy=rounded)
    fully_shard(model, mesh=over)
    if isinstance(model, Llama):
        register_fsdp_forward_method(model, "hidden_states")  # called by itself, as the loss does, it gathers too
    for module in sharded_modules(model):
        # A sum instead of a mean: the loss is already divided by the targets that all ranks count.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


def sharded_modules(model: Llama | Stage) -> list[FSDPModule]:
    """What `apply_fsdp` has made groups of: the layers and the model."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def drop_gathered(model: Llama | Stage) -> None:
    """Drop what a forward pass without a backward pass has left gathered (the root's parameters): they would go stale
    when the optimizer changes the slices."""
    for module in sharded_modules(model):
        module.reshard()


@contextmanager
def kept_gathered(model: Llama) -> Iterator[None]:
    """Within, what a forward pass has gathered stays, for the many that generate a text: in the end the model."""
    layers = [module for module in sharded_modules(model) if module is not model]
    for layer in layers:
        layer.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_reshard_after_forward(True, recurse=False)
        drop_gathered(model)
