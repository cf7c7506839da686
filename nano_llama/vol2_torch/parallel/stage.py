"""A stage of a pipeline: some consecutive layers of a Llama; the first has the embedding, the last the head.

A stage's parameters keep the names that they have in the whole model, so checkpoints and optimizers need not know of
it. A tied embedding is held by the first stage, which embeds, and by the last, whose head it is; the two are kept
equal by pp.py. Tests: tests/parallel/test_stage.py.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from nano_llama.core.errors import UserError
from nano_llama.vol2_torch.lora_linear import LoraLinear
from nano_llama.vol2_torch.model import Decoder, Llama
from nano_llama.vol2_torch.quantized_linear import dense

EMBEDDING = "model.embed_tokens.weight"


def layers_of_stage(layers: int, index: int, stages: int) -> range:
    """The layers of stage `index`: as even as can be, and what is left over goes to the first, who have no head."""
    if layers < stages:
        raise UserError(
            f"{layers} layers cannot be cut into the {stages} stages of this pipeline.",
            hint=f"pp={layers} at most, or another axis.",
        )
    each, over = divmod(layers, stages)
    first = index * each + min(index, over)
    return range(first, first + each + (index < over))


class StageDecoder(nn.Module):
    """Some layers of a `Decoder` under their own numbers, and where they are wanted the embedding and the last norm."""

    def __init__(self, whole: Decoder, layers: range, embeds: bool, norms: bool):
        super().__init__()
        self.embed_tokens = whole.embed_tokens if embeds else None
        self.layers = nn.ModuleList()
        for number in layers:
            self.layers.add_module(str(number), whole.layers[number])
        self.norm = whole.norm if norms else None


class Stage(nn.Module):
    """Stage `index` of the model that it is cut from, with which it shares its parameters.

    autocast: the context that it computes in, which the backward pass must not be in.
    """

    def __init__(
        self, model: Llama, index: int, stages: int, autocast: Callable[[], AbstractContextManager] = nullcontext
    ):
        super().__init__()
        self.config, self.rope, self.autocast = model.config, model.rope, autocast
        self.dtype = model.dtype  # of the stream between layers, however fsdp gathers their parameters
        self.within_documents = model.within_documents
        self.is_first, self.is_last = index == 0, index == stages - 1
        tied_head = self.is_last and model.lm_head is None
        self.model = StageDecoder(
            model.model, layers_of_stage(model.config.num_hidden_layers, index, stages),
            embeds=self.is_first or tied_head, norms=self.is_last,
        )  # fmt: skip
        self.lm_head = model.lm_head if self.is_last else None

    def forward(self, x: Tensor, positions: Tensor | None = None, documents: Tensor | None = None) -> Tensor:
        """Tokens (B,T) for the first stage, what the stage before made (B,T,D) for others -> (B,T,D).

        The last one's are normed: the loss makes logits of them. positions, documents: (B,T), as for the whole model.
        """
        mask, below = None, None
        if documents is not None:
            positions, mask = self.within_documents(documents)
            below = x.shape[1]
        with self.autocast():
            cos, sin = self.rope.at(positions, 0, x.shape[1], x.device, self.dtype, below=below)
            if self.is_first:
                assert self.model.embed_tokens is not None
                x = self.model.embed_tokens(x)  # (B,T,D)
            for layer in self.model.layers:
                x = layer(x, cos, sin, mask, None)
            return x if self.model.norm is None else self.model.norm(x)

    @property
    def head_weight(self) -> Tensor:
        """(V,D) on the last stage: as `Llama.head_weight`."""
        if isinstance(self.lm_head, LoraLinear):
            return self.lm_head.merged_weight().to(self.dtype)
        head = self.model.embed_tokens if self.lm_head is None else self.lm_head
        assert head is not None, "the last stage has the head"
        return dense(head.weight)
