"""How many bytes a rank sends in a step, and how many parameters it has, by formula. wire.py counts the same.

w ranks of the axis, s bytes per number, P parameters (of a rank, after the other axes), N tokens that a rank computes
in a step, in one or more batches:

    dp     gradients are summed:                                2 (w-1)/w P s
    fsdp   gathered forward and backward, then reduced:         3 (w-1)/w P s for each batch; embedding, last norm and
           head stay gathered in between, in a pipeline all:    2 of the 3; in bf16 layers are gathered with s = 2
    tp     4 all-reduces of the stream per layer, 2 for embedding and loss, 3 float32 numbers per token for the loss:
                                                                2 (w-1)/w ((4 L + 2) N D s + 12 N)
    pp     hidden states to the next stage, their gradients to the one before:  N D s each; between the ends of the
           pipeline the gradient of a tied embedding
    cp     per layer, with A = G K numbers of a key or value, of N tokens; the gradients are summed as over dp
           ring      keys and values go round, and once more with their gradients:  (w-1) 6 N A s
           gather    all-gather, and reduce-scatter of the gradients:               (w-1) 4 N A s
           ulysses   all-to-alls of q, k, v and the result, and back:               (w-1)/w 4 N (H K + A) s

Between CPUs a reduce-scatter is an all-reduce (gloo): each counts twice. Tests: tests/parallel/test_wire.py.
"""

from math import prod

from nano_llama.core.config import LlamaConfig
from nano_llama.core.names import parameter_shapes
from nano_llama.vol2_torch.parallel.config import ParallelConfig
from nano_llama.vol2_torch.parallel.stage import layers_of_stage
from nano_llama.vol2_torch.parallel.tp import attention_cut


def comm_bytes(
    config: LlamaConfig, axes: ParallelConfig, *, tokens: int, batches: int = 1, number: int = 4, gloo: bool = True,
    sequence_parallel: bool = False, context: str = "ring", stage: int = 0, gathered: int | None = None,
) -> dict[str, float]:  # fmt: skip
    """{axis: bytes}, of a rank and step, for the axes that are used.

    tokens: that the rank computes, in all `batches` of the step. number: bytes of a weight, gradient or activation.
    context: how cp attends. stage: the rank's place in the pipeline. gathered: bytes of a layer's weight as it
    is gathered over fsdp; None: number.
    """
    scatter = 2 if gloo else 1  # what a reduce-scatter costs, in all-gathers
    D, N = config.hidden_size, tokens
    layers = layers_of_stage(config.num_hidden_layers, stage, axes.pp)
    first, last = stage == 0, stage == axes.pp - 1
    held = rank_parameters(config, ParallelConfig(tp=axes.tp, pp=axes.pp), stage)
    inner = sum(count for name, count in held.items() if name.startswith("model.layers."))
    outer = sum(held.values()) - inner
    sent: dict[str, float] = {}
    if axes.dp > 1:
        sent["dp"] = 2 * share(axes.dp) * (inner + outer) / axes.fsdp * number
    if axes.fsdp > 1:
        gathers = 1 if axes.pp > 1 else 2  # of a layer
        per_batch = gathers * (gathered or number) * inner + scatter * number * inner + (1 + scatter) * number * outer
        sent["fsdp"] = batches * share(axes.fsdp) * per_batch
    if axes.tp > 1:
        stream = share(axes.tp) * N * D * number * (1 + scatter if sequence_parallel else 2)  # of an all-reduce
        cut = attention_cut(config, axes.tp)
        sent["tp"] = (2 * len(layers) * (2 if cut else 1) + first + last) * stream
        sent["tp"] += 2 * share(axes.tp) * 12 * N * last
        if sequence_parallel and not cut:  # attention is entered by an all-gather, and so is its backward pass
            sent["tp"] += 2 * len(layers) * share(axes.tp) * N * D * number
        if cut == "queries":  # the gradients of what the copied key and value projections return
            sent["tp"] += 2 * share(axes.tp) * 2 * len(layers) * N * kv_width(config) * number
    if axes.pp > 1:
        sent["pp"] = (2 - first - last) * N * D * number
        if config.tie_word_embeddings and (first or last):
            sent["pp"] += held["model.embed_tokens.weight"] / axes.fsdp * number
    if axes.cp > 1:
        width = config.num_attention_heads * config.head_dim
        per_token = {
            "ring": (axes.cp - 1) * 6 * kv_width(config),
            "gather": (axes.cp - 1) * 2 * (1 + scatter) * kv_width(config),
            "ulysses": share(axes.cp) * 4 * (width + kv_width(config)),
        }
        sent["cp"] = len(layers) * N * per_token[context] / axes.tp * number
        sent["cp"] += 2 * share(axes.cp) * (inner + outer) / axes.fsdp * number
    return sent


def rank_parameters(config: LlamaConfig, axes: ParallelConfig, stage: int = 0) -> dict[str, float]:
    """How many numbers of each parameter a rank holds: the mean over ranks, where they are not equal."""
    layers = layers_of_stage(config.num_hidden_layers, stage, axes.pp)
    ends = {"model.embed_tokens.weight": stage == 0 or (stage == axes.pp - 1 and config.tie_word_embeddings)}
    cut = attention_cut(config, axes.tp)
    held = {}
    for name, shape in parameter_shapes(config).items():
        here = int(name.split(".")[2]) in layers if name.startswith("model.layers.") else stage == axes.pp - 1
        if not ends.get(name, here):
            continue
        copied = (
            len(shape) == 1 or ("self_attn" in name and not cut)
            or (cut == "queries" and ("k_proj" in name or "v_proj" in name))
        )  # fmt: skip
        held[name] = prod(shape) / (1 if copied else axes.tp) / axes.fsdp
    return held


def kv_width(config: LlamaConfig) -> int:
    return config.num_key_value_heads * config.head_dim


def share(ranks: int) -> float:
    """(w-1)/w"""
    return (ranks - 1) / ranks
