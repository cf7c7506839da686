"""Tensor parallel: each rank computes with a slice of every matrix, and the slices' results are summed.

    attention   q, k, v cut by heads (rows), o by the same heads (columns): a rank attends with H/w of the H heads
    MLP         gate and up cut by rows, down by columns: a rank has F/w of the F hidden units
    embedding   cut by rows: a rank looks up the tokens of its V/w; the head likewise, and the loss (vocab_loss.py)

A layer so costs four all-reduces of the stream (B,T,D): one behind o and one behind down in the forward pass, and one
for the input of each pair in the backward pass. With sequence_parallel each becomes a reduce-scatter and an
all-gather, and between them a rank holds T/w of the positions: the norms are computed once instead of w times.
Shoeybi et al. 2019, "Megatron-LM" (arXiv 1909.08053), section 3; sequences: Korthikanti et al. 2022 (arXiv 2205.05198).

What the number of ranks w does not divide: rows of the vocabulary and hidden units go to the ranks unevenly; heads are
never cut, so that each rank copies the key and value heads where only the query heads can be divided, and else all of
attention. Parameters are DTensors on mesh["tp"]. Naive form: naive_tp.py. Tests: tests/parallel/test_training.py.
"""

from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_module
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)

from nano_llama.core.config import LlamaConfig
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.parallel.stage import Stage

WHOLE = Replicate()  # every rank has all of it


def apply_tp(model: Llama | Stage, mesh: DeviceMesh, *, sequence_parallel: bool) -> None:
    """Cut the model in place over the ranks of mesh["tp"]; every parameter becomes a DTensor.

    What goes in is the same on each of these ranks; the hidden states that come out too, but their gradient is
    expected in parts that are to be summed, as VocabParallelLoss returns it.
    """
    over = mesh["tp"]
    stream: Placement = Shard(1) if sequence_parallel else WHOLE  # how ranks hold (B,T,D) between the sublayers
    for layer in model.model.layers:
        parallelize_module(layer, over, layer_plan(model.config, over, stream), src_data_rank=None)
    ends: dict[str, ParallelStyle] = {
        "model.embed_tokens": RowwiseParallel(input_layouts=WHOLE, output_layouts=stream),  # (B,T) -> (B,T,D)
        "model.norm": LastNorm(stream, WHOLE, gradient=Partial()),  # (B,T,D) -> (B,T,D), of all positions
    }
    if model.lm_head is not None:
        ends["lm_head"] = ColwiseParallel(input_layouts=WHOLE)  # (B,T,D) -> (B,T,V/w)
    here = {name: ends[name] for name, _ in model.named_modules() if name in ends}  # of a pipeline's stage not all
    parallelize_module(model, over, here, src_data_rank=None)
    if model.model.embed_tokens is not None:
        model.model.embed_tokens.register_forward_hook(arrived)


def arrived(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """A plain tensor of one whose sum may be on its way still: to that no gradient comes back from a compiled layer."""
    return output.clone()


def layer_plan(config: LlamaConfig, over: DeviceMesh, stream: Placement) -> dict[str, ParallelStyle]:
    """What becomes of a layer's parts. The inputs of attention and MLP are gathered once for all their matrices."""
    rest = (None,) * 4  # cos, sin, mask, cache
    # A plain tensor does not know that other ranks have slices of another width: there DTensors go on to down_proj.
    even = config.intermediate_size % over.size() == 0
    return {
        "input_layernorm": Copied(stream, stream),
        "self_attn": PrepareModuleInput(input_layouts=(stream, *rest), desired_input_layouts=(WHOLE, *rest)),
        **attention_plan(config, over, stream),
        "post_attention_layernorm": Copied(stream, stream),
        "mlp": PrepareModuleInput(input_layouts=(stream,), desired_input_layouts=(WHOLE,)),
        "mlp.gate_proj": ColwiseParallel(use_local_output=even),  # (B,T,D) -> (B,T,F/w)
        "mlp.up_proj": ColwiseParallel(use_local_output=even),
        "mlp.down_proj": RowwiseParallel(output_layouts=stream),  # (B,T,F/w) -> (B,T,D)
    }


def attention_plan(config: LlamaConfig, over: DeviceMesh, stream: Placement) -> dict[str, ParallelStyle]:
    cut = attention_cut(config, over.size())
    queries: ParallelStyle = ColwiseParallel() if cut else Copied(WHOLE, WHOLE)  # (B,T,D) -> (B,T,H/w*K)
    keys: ParallelStyle = ColwiseParallel() if cut else Copied(WHOLE, WHOLE)  # (B,T,D) -> (B,T,G/w*K)
    output: ParallelStyle = RowwiseParallel(output_layouts=stream) if cut else Copied(WHOLE, stream)  # -> (B,T,D)
    if cut == "queries":
        group_of_rank = over.get_local_rank() * config.num_key_value_heads // over.size()
        keys = OneHead(group_of_rank, config.head_dim)  # (B,T,D) -> (B,T,K)
    return {
        "self_attn.q_proj": queries,
        "self_attn.k_proj": keys,
        "self_attn.v_proj": keys,
        "self_attn.o_proj": output,
    }


def attention_cut(config: LlamaConfig, ranks: int) -> str:
    """What of attention is cut: "heads", all of them; "queries", where a rank's share one key/value head; "", none."""
    H, G = config.num_attention_heads, config.num_key_value_heads
    if H % ranks == 0 and G % ranks == 0:
        return "heads"
    return "queries" if H % ranks == 0 and ranks % G == 0 else ""


class Copied(ParallelStyle):
    """A module whose parameters every rank has whole. It takes and returns plain tensors, held as `before` and `after`
    say; gradient: how the ranks hold the output's gradient, by default like the output."""

    def __init__(self, before: Placement, after: Placement, gradient: Placement | None = None):
        super().__init__()
        self.before, self.after, self.gradient = before, after, gradient or after

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        return distribute_module(module, device_mesh, self.copy_parameters, self.enter, self.leave)  # type: ignore[arg-type]

    @staticmethod
    def copy_parameters(name: str, module: nn.Module, over: DeviceMesh) -> None:
        for parameter_name, parameter in module.named_parameters(recurse=False):
            copied = DTensor.from_local(parameter.detach(), over, [WHOLE], run_check=False)
            module.register_parameter(parameter_name, nn.Parameter(copied, parameter.requires_grad))

    def enter(self, module: nn.Module, inputs: tuple[Any, ...], over: DeviceMesh) -> Any:
        x = inputs[0]
        return x if isinstance(x, DTensor) else DTensor.from_local(x, over, [self.before], run_check=False)

    def leave(self, module: nn.Module, output: Any, over: DeviceMesh) -> Tensor:
        return output.redistribute(placements=[self.after]).to_local(grad_placements=[self.gradient])


class LastNorm(Copied):
    """What it returns leaves the model: a copy, since fully_shard warns of a model that returns a view."""

    def leave(self, module: nn.Module, output: Any, over: DeviceMesh) -> Tensor:
        return super().leave(module, output, over).clone()


class OneHead(Copied):
    """A projection to key or value heads that every rank has whole, of which it uses one: (B,T,D) -> (B,T,K)."""

    def __init__(self, head: int, head_dim: int):
        super().__init__(WHOLE, WHOLE, Partial())  # each rank brings the gradient of its own head
        self.head, self.head_dim = head, head_dim

    def leave(self, module: nn.Module, output: Any, over: DeviceMesh) -> Tensor:
        return super().leave(module, output, over).narrow(-1, self.head * self.head_dim, self.head_dim)
