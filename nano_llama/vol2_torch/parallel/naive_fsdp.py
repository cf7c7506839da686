"""Fully sharded data parallel with nothing hidden: gather a layer's slices, compute, drop them; gradients are sliced.

The backward pass needs the weights again. Here activation checkpointing brings them back: it runs the layer anew,
gather included. fsdp.py keeps the activations and gathers the weights alone, and the next layer's while one computes.
Tests: tests/parallel/test_naive.py.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from nano_llama.vol2_torch.loss import head_loss
from nano_llama.vol2_torch.model import Llama


class Gather(torch.autograd.Function):
    """(n,) on each of w ranks -> the parameter that they are the slices of. Its gradient: summed, and sliced again."""

    @staticmethod
    def forward(ctx: Any, piece: Tensor, shape: torch.Size, group: dist.ProcessGroup) -> Tensor:
        ctx.group, ctx.count = group, piece.numel()
        pieces = [torch.empty_like(piece) for _ in range(group.size())]
        dist.all_gather(pieces, piece, group=group)
        return torch.cat(pieces)[: shape.numel()].view(shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        flat = F.pad(gradient.flatten(), (0, ctx.count * ctx.group.size() - gradient.numel()))  # (w*n,)
        piece = flat.new_empty(ctx.count)  # (n,)
        dist.reduce_scatter_tensor(piece, flat, group=ctx.group)
        return piece, None, None


class NaiveFSDP:
    """A model of which this rank keeps slices only. `slices`: its parameters, (n,) each, by the model's names."""

    def __init__(self, model: Llama, group: dist.ProcessGroup):
        self.group, self.shapes, self.slices = group, {}, {}
        for name, parameter in model.named_params().items():
            flat = parameter.detach().flatten()
            n = -(-len(flat) // group.size())  # the last slice is filled up with zeros
            mine = flat[group.rank() * n : (group.rank() + 1) * n]
            self.shapes[name], self.slices[name] = parameter.shape, nn.Parameter(F.pad(mine, (0, n - len(mine))))
        self.model = model.to("meta")  # what it computes, without the weights

    def loss_sum(self, tokens: Tensor, targets: Tensor) -> Tensor:  # (B/w,T) each -> ()
        x = self.call("model.embed_tokens", tokens)  # (B/w,T,D)
        cos, sin = self.model.rope.at(None, 0, tokens.shape[1], x.device, x.dtype)
        for index in range(self.model.config.num_hidden_layers):
            x = self.call(f"model.layers.{index}", x, cos, sin, None, None)
        x = self.call("model.norm", x)
        tied = self.model.config.tie_word_embeddings
        head = self.gather("model.embed_tokens.weight" if tied else "lm_head.weight")  # (V,D)
        return head_loss(x.flatten(0, 1), head, targets.flatten())

    def call(self, name: str, *inputs: Any) -> Tensor:
        module = self.model.get_submodule(name)

        def gathered(*inputs: Any) -> Tensor:
            weights = {part: self.gather(f"{name}.{part}") for part, _ in module.named_parameters()}
            return functional_call(module, weights, inputs)

        return checkpoint(gathered, *inputs, use_reentrant=False)

    def gather(self, name: str) -> Tensor:
        return Gather.apply(self.slices[name], self.shapes[name], self.group)
