"""The LLaMA in PyTorch, top to bottom: norm, rotation, attention, MLP, block, model.

The gradients are autograd's; their derivations are in vol1_numpy.
Tests: tests/vol2/test_model.py, tests/parity/test_transformers.py.

Module and parameter names are those of transformers' `LlamaForCausalLM`, so a state dict fits both.
Shapes: B batch, T time, D width, H query heads, G key/value heads, K head dim, F MLP width, V vocabulary,
S = cached + T. The key/value cache is cache.py.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.init import InitialParams, check_params
from nano_llama.core.names import EMBED, parameter_shapes
from nano_llama.core.rope import rope_tables
from nano_llama.formats.mapping import TensorMapping
from nano_llama.vol2_torch.activation_checkpointing import checkpointed
from nano_llama.vol2_torch.cache import KVCache, LayerCache
from nano_llama.vol2_torch.lora_linear import LoraLinear
from nano_llama.vol2_torch.packing import within_documents, within_window
from nano_llama.vol2_torch.precision import attends_in_float32
from nano_llama.vol2_torch.quantized_linear import dense, linear


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * weight.  Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))  # (D,)
        self.eps = eps

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps:g}"  # what print(model) shows within RMSNorm()

    def forward(self, x: Tensor) -> Tensor:  # (..., D) -> (..., D)
        if x.dtype == torch.float32 or x.dtype == torch.float64:
            return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)
        # in half precision the mean of squares is taken in float32
        return F.rms_norm(x.float(), self.weight.shape, None, self.eps).to(x.dtype) * self.weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in the half layout: dimension i rotates with i + K/2.  x (B,H,T,K), cos and sin (T,K/2) or (B,1,T,K/2)."""
    first, second = x.chunk(2, dim=-1)  # (B,H,T,K/2) each
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245): H query heads share G key/value heads."""

    def __init__(self, hidden_size: int, num_attention_heads: int, num_key_value_heads: int, head_dim: int):
        super().__init__()
        D, H, G, K = hidden_size, num_attention_heads, num_key_value_heads, head_dim
        self.head_dim = K
        self.q_proj = nn.Linear(D, H * K, bias=False)
        self.k_proj = nn.Linear(D, G * K, bias=False)
        self.v_proj = nn.Linear(D, G * K, bias=False)
        self.o_proj = nn.Linear(H * K, D, bias=False)
        self.grouped = H != G

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: LayerCache | None
    ) -> Tensor:  # (B,T,D) -> (B,T,D)
        q, k, v = (self.heads(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))  # (B,H|G,T,K)
        q, k = self.rotate(q, k, cos, sin)
        if cache is not None:
            k, v = cache.append(k, v)  # (B,G,S,K)
        # Without a mask every query sees itself and what came before; a single query sees everything.
        causal = mask is None and q.shape[2] > 1
        if attends_in_float32(q.device.type, q.shape[2]):
            with torch.autocast(q.device.type, enabled=False):
                y = self.attend(q.float(), k.float(), v.float(), mask, causal)
        else:
            y = self.attend(q, k, v, mask, causal)
        return self.o_proj(y.transpose(1, 2).flatten(2))  # (B,H,T,K) -> (B,T,H*K) -> (B,T,D)

    def rotate(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:  # of the same shapes
        return rotate(q, cos, sin), rotate(k, cos, sin)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:  # -> (B,H,T,K)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=self.grouped)

    def heads(self, x: Tensor) -> Tensor:  # (B,T,n*K) -> (B,n,T,K)
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


def gelu_pytorch_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu, "gelu_pytorch_tanh": gelu_pytorch_tanh, "relu": F.relu, "relu2": relu2,
}  # fmt: skip


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), or with another activation.  Shazeer 2020, arXiv 2002.05202, eq. 6."""

    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str = "silu"):
        super().__init__()
        self.activation = ACTIVATIONS[hidden_act]
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B,T,D) -> (B,T,F) -> (B,T,D)
        return self.down_proj(self.gated(self.gate_proj(x), self.up_proj(x)))

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:  # (B,T,F)
        return self.activation(gate) * up


class Block(nn.Module):
    """One layer: attention and MLP, each reading a normed copy of the residual stream and adding to it; or with norms
    elsewhere (core/variants.py)."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(
            config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        )
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.norm_placement = config.norm_placement
        self.dropout = 0.0  # while training, of what each sublayer adds to the stream
        self.checkpointing = "none"  # while training: activation_checkpointing.py
        self.draws = False  # whether that draws random numbers

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        if self.training and self.checkpointing != "none" and torch.is_grad_enabled():
            return checkpointed(self.checkpointing, self.sublayers, x, cos, sin, mask, cache, draws=self.draws)
        return self.sublayers(x, cos, sin, mask, cache)

    def sublayers(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        x = self.around(x, self.input_layernorm, lambda h: self.self_attn(h, cos, sin, mask, cache))
        return self.around(x, self.post_attention_layernorm, self.mlp)

    def around(self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:  # (B,T,D) -> (B,T,D)
        """The stream after a sublayer, with its norm where this model has it."""
        if self.norm_placement == "pre":
            return x + self.drop(sublayer(norm(x)))
        if self.norm_placement == "post":
            return norm(x + self.drop(sublayer(x)))
        return x + self.drop(norm(sublayer(x)))  # reordered

    def drop(self, x: Tensor) -> Tensor:
        """Dropout (Srivastava et al. 2014), as vol1_numpy/ops/dropout.py: what is kept is scaled by 1 / (1 - p)."""
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Decoder(nn.Module):
    """Embedding, L blocks and the last norm: tokens (B,T) -> hidden states (B,T,D)."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    """The whole model: tokens (B,T) -> logits (B,T,V).

    Build it with `Llama.init(config, seed)` (fresh weights) or `Llama.from_pretrained(path)`; the bare constructor
    leaves the weights to be filled by `load_params`.
    """

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head: nn.Linear | LoraLinear | None = None  # tied: the embedding is the head
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.rope = RopeTables(config)
        self.within_documents = within_documents  # what attention is told of documents

    # -- the forward pass -----------------------------------------------------------------------------------------

    def forward(
        self,
        tokens: Tensor,
        *,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """tokens (B,T) of integers -> logits (B,T,V).

        cache: the keys and values of what came before; it grows by T. positions: (T,) or (B,T), by default counted
        from the cache's length. mask: boolean, True may attend, broadcastable to (B,1,T,S) with S = cached + T; by
        default causal. Pass a mask for padding or packed documents.
        """
        return self.logits(self.hidden_states(tokens, cache=cache, positions=positions, mask=mask))

    def logits(self, hidden: Tensor) -> Tensor:
        """The head, its own matrix or the embedding (tied): (..., D) -> (..., V)."""
        return linear(hidden, self.model.embed_tokens.weight) if self.lm_head is None else self.lm_head(hidden)

    def hidden_states(
        self,
        tokens: Tensor,
        *,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """As `forward`, without the head: (B,T) -> (B,T,D), where only a few positions need logits.

        documents: (B,T), the number of each token's, in place of positions and mask: attention stays within each.
        """
        x = self.model.embed_tokens(tokens)  # (B,T,D)
        T = tokens.shape[1]  # sequence parallel leaves a part of them to each rank
        return self.decode(x, cache=cache, positions=positions, mask=mask, documents=documents, length=T)

    def decode(
        self,
        x: Tensor,
        *,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        documents: Tensor | None = None,
        length: int | None = None,
    ) -> Tensor:
        """As `hidden_states`, from embeddings instead of tokens: (B,T,D) -> (B,T,D). vision/ puts images among them.

        length: T, where x has a part of the positions only; by default it has all.
        """
        past = cache.length if cache is not None else 0
        B, T = len(x), x.shape[1] if length is None else length
        below = None
        if documents is not None:
            positions, mask = self.within_documents(documents)
            below = T
        elif mask is not None:
            check_mask(mask, (B, 1, T, past + T))
        cos, sin = self.rope.at(positions, past, T, x.device, self.dtype, below=below)
        if mask is None and past and T > 1:  # the triangle, shifted by what is cached
            mask = torch.ones(T, past + T, dtype=torch.bool, device=x.device).tril(past)
        if self.config.sliding_window is not None:
            mask = within_window(mask, self.config.sliding_window, T, past, x.device)
        for index, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, mask, cache.layers[index] if cache is not None else None)
        return self.model.norm(x)

    @property
    def head_weight(self) -> Tensor:
        """(V,D): the head as one matrix, for losses that never make all logits; merged or dequantized each time."""
        if isinstance(self.lm_head, LoraLinear):
            return self.lm_head.merged_weight().to(self.dtype)
        return dense(self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight)

    @property
    def layers(self) -> list[nn.Module]:
        """Those that are compiled, one by one."""
        return list(self.model.layers)

    @property
    def dtype(self) -> torch.dtype:
        return self.model.embed_tokens.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    def train_with(self, dropout: float, activation_checkpointing: str) -> None:
        """How the layers behave while training: dropout's p, and what is recomputed (activation_checkpointing.py)."""
        for layer in self.model.layers:
            assert isinstance(layer, Block)
            layer.dropout, layer.checkpointing = dropout, activation_checkpointing
            adapters = (module for module in layer.modules() if isinstance(module, LoraLinear))
            layer.draws = dropout > 0.0 or any(adapter.lora.dropout > 0.0 for adapter in adapters)

    # -- weights in and out ---------------------------------------------------------------------------------------

    @classmethod
    def init(
        cls,
        config: LlamaConfig,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Llama":
        """A model with fresh weights: the same numbers that every volume draws for this seed."""
        return cls._empty(config, device, dtype).load_params(InitialParams(config, seed))

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        adapter: str | Path | None = None,
    ) -> "Llama":
        """Load a Hugging Face folder, a .gguf, or a hub name; tensor by tensor, so memory holds the model once.

        adapter: a folder in PEFT's format, which is merged into the weights (finetune.load_adapter keeps it apart).
        """
        from nano_llama.formats import open_model
        from nano_llama.formats.merged import open_merged

        wide = "F64" if dtype == torch.float64 else "F32"  # of a merged matrix, which is rounded to `dtype` once
        with open_model(path) if adapter is None else open_merged(path, adapter, wide) as weights:
            return cls.from_weights(weights, device, dtype)

    @classmethod
    def from_weights(
        cls, weights: TensorMapping, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> "Llama":
        """The weights of an open file or folder, copied tensor by tensor."""
        return cls._empty(weights.config, device, dtype).load_params(weights)

    @classmethod
    def _empty(cls, config: LlamaConfig, device: str | torch.device, dtype: torch.dtype) -> "Llama":
        with torch.device("meta"):
            model = cls(config)
        return model.to(dtype).to_empty(device=device)

    @torch.no_grad()
    def load_params(self, params: Mapping[str, np.ndarray]) -> "Llama":
        """Copy {name: array} into the parameters, converting to their dtype. Names and shapes must match exactly."""
        check_params(self.config, params)
        own = self.named_params()
        for name in own:
            own[name].copy_(to_tensor(params[name]))
            if isinstance(params, TensorMapping):
                params.release_pages()
        return self

    def named_params(self) -> dict[str, nn.Parameter]:
        """name -> parameter, in core/names.py's order; no lm_head.weight when tied."""
        own: dict[str, Any] = dict(self.named_parameters())
        if EMBED not in own:
            raise UserError(
                "The model's base is quantized, so it has no such parameters.",
                hint="finetune.merge_lora makes an ordinary model of it.",
            )
        return {name: own[name] for name in parameter_shapes(self.config)}


def check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raise UserError unless the mask is boolean and broadcasts to `shape`, (B,1,T,S): nothing else is guessed."""
    if mask.dtype != torch.bool:
        raise UserError(
            f"The mask is {mask.dtype}; expected torch.bool, True where a token may attend.", hint="mask.bool()"
        )
    try:
        fits = torch.broadcast_shapes(mask.shape, shape) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise UserError(
            f"The mask has shape {tuple(mask.shape)}, which does not broadcast to (B,1,T,S) = {shape}.",
            hint="A mask for each text, (B,T,S), goes in as mask[:, None].",
        )


class RopeTables:
    """cos and sin per device and dtype, extended when a longer sequence comes."""

    def __init__(self, config: LlamaConfig):
        self.config = config
        self.tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def at(
        self, positions: Tensor | None, past: int, T: int, device: torch.device, dtype: torch.dtype,
        below: int | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """cos, sin: (T,K/2) for positions past..past+T, or (B,1,T,K/2) for positions (B,T).

        below: a number that all positions lie below; None: they are looked at.
        """
        last = past + T if positions is None else self._end(positions, T, below)
        if self.config.rope_kind == "dynamic":  # frequencies depend on the length: nothing to cache
            cos, sin = self._make(last, device, dtype)
        else:
            cos, sin = self.tables.get((device, dtype), (torch.empty(0), torch.empty(0)))
            if len(cos) < last:
                cos, sin = self._make(max(last, min(2 * len(cos), self.config.max_position_embeddings)), device, dtype)
                self.tables[device, dtype] = cos, sin
        if positions is None:
            return cos[past:last], sin[past:last]
        cos, sin = cos[positions], sin[positions]  # (T,K/2) or (B,T,K/2)
        return (cos[:, None], sin[:, None]) if positions.dim() == 2 else (cos, sin)

    def _end(self, positions: Tensor, T: int, below: int | None) -> int:
        """Of the tables that these positions need. Raises UserError if they are none."""
        if self.config.rope_kind == "dynamic":  # whose tables depend on the very length
            below = None
        if positions.shape[-1] != T or positions.dim() > 2 or (below is None and positions.min() < 0):
            raise UserError(f"positions: expected (T,) or (B,T), from 0, with T = {T}; got {tuple(positions.shape)}.")
        return int(positions.max()) + 1 if below is None else below

    def _make(self, length: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        wide = np.float64 if dtype == torch.float64 else np.float32
        cos, sin = rope_tables(self.config, np.arange(length), wide)
        return torch.from_numpy(cos).to(device, dtype), torch.from_numpy(sin).to(device, dtype)


def to_tensor(array: np.ndarray) -> Tensor:
    """A NumPy array as a tensor, bfloat16 (which NumPy itself does not know) included."""
    array = np.asarray(array, order="C")  # ascontiguousarray would make a scalar a row of one
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
