"""Every op of a LLaMA as a pair: x_forward(...) -> (y, cache) and x_backward(dy, cache) -> gradients.

Gradients come in the order of the forward's arguments, for those that have one: weights and activations. Integers
(tokens, targets), masks, angles, eps and other settings have none. One gradient comes as the array itself, several
as a tuple. layer.py and model.py put the ops together.
Tests: tests/vol1/test_ops_gradients.py and its neighbours.

In reading order: linear, embedding, softmax, cross_entropy, single_head_attention; then the parts of a LLaMA's layer:
rmsnorm, rope, attention, silu, swiglu. Functions that end in _fast compute the same with fewer passes over memory: skip
them on a first reading. After that: tiled_attention and flash_attention are attention in less memory; lora_linear and
dora_linear are what fine-tuning trains beside a frozen matrix; affine, gelu and layernorm are what an image encoder has
instead (vision/); relu, its square and gelu may stand in silu's place (gated.py).
"""

from nano_llama.vol1_numpy.ops.affine import affine_backward, affine_forward
from nano_llama.vol1_numpy.ops.attention import attention_backward, attention_forward, attention_weights
from nano_llama.vol1_numpy.ops.cross_entropy import cross_entropy_backward, cross_entropy_forward
from nano_llama.vol1_numpy.ops.dora_linear import dora_linear_backward, dora_linear_forward, row_lengths
from nano_llama.vol1_numpy.ops.dropout import dropout_backward, dropout_forward
from nano_llama.vol1_numpy.ops.embedding import embedding_backward, embedding_forward
from nano_llama.vol1_numpy.ops.flash_attention import flash_attention_backward, flash_attention_forward, log_sum_exp
from nano_llama.vol1_numpy.ops.frozen_linear import frozen_linear_backward, frozen_linear_forward
from nano_llama.vol1_numpy.ops.gelu import gelu_backward, gelu_forward
from nano_llama.vol1_numpy.ops.layernorm import layernorm_backward, layernorm_forward
from nano_llama.vol1_numpy.ops.linear import linear_backward, linear_forward
from nano_llama.vol1_numpy.ops.lora_linear import lora_linear_backward, lora_linear_forward
from nano_llama.vol1_numpy.ops.relu import relu_backward, relu_forward, squared_relu_backward, squared_relu_forward
from nano_llama.vol1_numpy.ops.rmsnorm import rmsnorm_backward, rmsnorm_forward
from nano_llama.vol1_numpy.ops.rope import rope_backward, rope_forward
from nano_llama.vol1_numpy.ops.silu import silu_backward, silu_forward
from nano_llama.vol1_numpy.ops.single_head_attention import (
    single_head_attention_backward,
    single_head_attention_forward,
)
from nano_llama.vol1_numpy.ops.softmax import softmax_backward, softmax_forward
from nano_llama.vol1_numpy.ops.swiglu import swiglu_backward, swiglu_forward
from nano_llama.vol1_numpy.ops.tiled_attention import tiled_attention_backward, tiled_attention_forward

__all__ = [
    "affine_backward",
    "affine_forward",
    "attention_backward",
    "attention_forward",
    "attention_weights",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "dora_linear_backward",
    "dora_linear_forward",
    "dropout_backward",
    "dropout_forward",
    "embedding_backward",
    "embedding_forward",
    "flash_attention_backward",
    "flash_attention_forward",
    "frozen_linear_backward",
    "frozen_linear_forward",
    "gelu_backward",
    "gelu_forward",
    "layernorm_backward",
    "layernorm_forward",
    "linear_backward",
    "linear_forward",
    "log_sum_exp",
    "lora_linear_backward",
    "lora_linear_forward",
    "relu_backward",
    "relu_forward",
    "rmsnorm_backward",
    "rmsnorm_forward",
    "rope_backward",
    "rope_forward",
    "row_lengths",
    "silu_backward",
    "silu_forward",
    "single_head_attention_backward",
    "single_head_attention_forward",
    "softmax_backward",
    "softmax_forward",
    "squared_relu_backward",
    "squared_relu_forward",
    "swiglu_backward",
    "swiglu_forward",
    "tiled_attention_backward",
    "tiled_attention_forward",
]
