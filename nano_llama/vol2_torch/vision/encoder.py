"""The image encoder in PyTorch, a Vision Transformer, and the projector behind it.

Module and parameter names are those of transformers' Idefics3, so a state dict fits both.
Tests: tests/vol2/vision/test_vision_encoder.py. Shapes: N images, S pixels a side, D the encoder's width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nano_llama.core.vision.config import NUM_CHANNELS, VisionConfig, VisionLanguageConfig


class PatchEmbeddings(nn.Module):
    """Patches through one matrix (a convolution whose stride is its kernel's size), and a learned row per place."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        D, P = config.hidden_size, config.patch_size
        self.patch_embedding = nn.Conv2d(NUM_CHANNELS, D, kernel_size=P, stride=P)
        self.position_embedding = nn.Embedding(config.num_patches, D)

    def forward(self, pixel_values: Tensor) -> Tensor:  # (N,3,S,S) -> (N, patches, D)
        x = self.patch_embedding(pixel_values)  # (N,D,s,s)
        # Idefics3 looks positions up by fractional coordinates; for whole square images that is the table as it is
        return x.flatten(2).transpose(1, 2) + self.position_embedding.weight


class Attention(nn.Module):
    """Every patch attends to every patch of its image: no mask, no rotation, with biases."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        D = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(D, D) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:  # (N, patches, D) -> (N, patches, D)
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )  # (N,H,patches,K)
        y = F.scaled_dot_product_attention(q, k, v)  # (N,H,patches,K)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """fc2(gelu(fc1(x))), with GELU in the form with tanh."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:  # (N, patches, D) -> (N, patches, F) -> (N, patches, D)
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class EncoderLayer(nn.Module):
    """Attention and MLP, each reading a normed copy of the residual stream and adding to it."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.self_attn = Attention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:  # (N, patches, D) -> (N, patches, D)
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """The layers."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor) -> Tensor:  # (N, patches, D) -> (N, patches, D)
        for layer in self.layers:
            x = layer(x)
        return x


class VisionTransformer(nn.Module):
    """Embeddings, layers, the last norm: pixel_values (N,3,S,S) -> (N, patches, D)."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.embeddings = PatchEmbeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.post_layernorm(self.encoder(self.embeddings(pixel_values)))


class ModalityProjection(nn.Module):
    """The matrix from the encoder's width, after the pixel shuffle, to the LLaMA's."""

    def __init__(self, config: VisionLanguageConfig):
        super().__init__()
        self.proj = nn.Linear(config.projector_inputs, config.text_config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Connector(nn.Module):
    """Pixel shuffle and projection: (N, patches, D) -> (N, image_seq_len, the LLaMA's D)."""

    def __init__(self, config: VisionLanguageConfig):
        super().__init__()
        self.scale_factor = config.scale_factor
        self.modality_projection = ModalityProjection(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.modality_projection(pixel_shuffle(x, self.scale_factor))


def pixel_shuffle(x: Tensor, scale_factor: int) -> Tensor:
    """r x r neighbouring patches side by side in one row: (N, s*s, D) -> (N, s*s/r^2, r*r*D)."""
    r, side = scale_factor, round(x.shape[1] ** 0.5)
    blocks = x.unflatten(1, (side // r, r, side // r, r))  # (N,i,a,j,b,D)
    return blocks.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
