"""A LLaMA that sees, in PyTorch: images -> encoder -> projector -> rows among the text's embeddings -> the LLaMA.

Tests: tests/vol2/vision/test_vision_model.py, tests/parity/test_idefics3.py.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nano_llama.core.vision.config import VisionLanguageConfig
from nano_llama.core.vision.init import check_vision_language_params, init_vision_language_params
from nano_llama.core.vision.names import vision_language_shapes
from nano_llama.core.vision.pixels import check_pixel_values, images_per_row
from nano_llama.formats import resolve_model
from nano_llama.formats.vision_folder import open_vision_language
from nano_llama.vol2_torch.cache import KVCache
from nano_llama.vol2_torch.model import Decoder, Llama, to_tensor
from nano_llama.vol2_torch.vision.encoder import Connector, VisionTransformer


class VisionDecoder(nn.Module):
    """What transformers calls `model`: the encoder, the connector, and the LLaMA's decoder."""

    def __init__(self, config: VisionLanguageConfig, text_model: Decoder):
        super().__init__()
        self.vision_model = VisionTransformer(config.vision_config)
        self.connector = Connector(config)
        self.text_model = text_model


class VisionLanguageModel(nn.Module):
    """tokens (B,T) and pixel_values (N,3,S,S) -> logits (B,T,V).

    The N images stand, in reading order, where the tokens hold `config.image_seq_len` times `config.image_token_id`.
    Build it with `VisionLanguageModel.init(config, seed)`, or around a LLaMA that is there.
    """

    def __init__(self, config: VisionLanguageConfig, language_model: Llama | None = None):
        """language_model: of config.text_config; None: a new one, whose weights are to be filled by `load_params`."""
        super().__init__()
        llama = Llama(config.text_config) if language_model is None else language_model
        assert llama.config == config.text_config, "the LLaMA is of another shape than the config says"
        self.config = config
        self.model = VisionDecoder(config, llama.model)
        self.lm_head = llama.lm_head
        # The LLaMA whose parts these are. Registered under its own name it would give each parameter a second one.
        self._language_model = (llama,)

    @property
    def language_model(self) -> Llama:
        """The LLaMA on the same parameters."""
        return self._language_model[0]

    # -- the forward pass -----------------------------------------------------------------------------------------

    def forward(
        self,
        tokens: Tensor,
        pixel_values: Tensor | None = None,
        *,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """tokens (B,T) of integers, pixel_values (N,3,S,S) -> logits (B,T,V). The others: as a Llama's.

        Raises UserError unless the tokens have places for exactly these images.
        """
        return self.logits(self.hidden_states(tokens, pixel_values, cache=cache, positions=positions, mask=mask))

    def logits(self, hidden: Tensor) -> Tensor:
        """The head: (..., D) -> (..., V)."""
        return self.language_model.logits(hidden)

    def hidden_states(
        self,
        tokens: Tensor,
        pixel_values: Tensor | None = None,
        *,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """As `forward`, without the head: (B,T) -> (B,T,D). documents: as a Llama's."""
        is_image = tokens == self.config.image_token_id  # (B,T)
        num_images = 0 if pixel_values is None else len(pixel_values)
        images_per_row(is_image.cpu().numpy(), num_images, self.config.image_seq_len)
        x = self.model.text_model.embed_tokens(tokens)  # (B,T,D)
        if pixel_values is not None:
            x = splice(x, self.encode(pixel_values), is_image)
        return self.language_model.decode(x, cache=cache, positions=positions, mask=mask, documents=documents)

    def encode(self, pixel_values: Tensor) -> Tensor:
        """What the LLaMA reads of each image: (N,3,S,S) -> rows (N, image_seq_len, D)."""
        check_pixel_values(pixel_values.shape, self.config.vision_config)
        return self.model.connector(self.model.vision_model(pixel_values.to(self.dtype)))

    @property
    def head_weight(self) -> Tensor:
        """(V,D): the head as one matrix."""
        return self.language_model.head_weight

    @property
    def layers(self) -> list[nn.Module]:
        """Of encoder and LLaMA: those that are compiled, one by one."""
        return [*self.model.vision_model.encoder.layers, *self.language_model.layers]

    def train_with(self, dropout: float, activation_checkpointing: str) -> None:
        """How the LLaMA's layers behave while training; the encoder has no dropout, and keeps its activations."""
        self.language_model.train_with(dropout, activation_checkpointing)

    @property
    def dtype(self) -> torch.dtype:
        return self.language_model.dtype

    @property
    def device(self) -> torch.device:
        return self.language_model.device

    # -- weights in and out ---------------------------------------------------------------------------------------

    @classmethod
    def init(
        cls,
        config: VisionLanguageConfig,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "VisionLanguageModel":
        """A model with fresh weights: the same numbers that every volume draws for this seed."""
        return cls._empty(config, device, dtype).load_params(init_vision_language_params(config, seed))

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> "VisionLanguageModel":
        """Load a folder of an Idefics3's layout, tensor by tensor."""
        config, weights = open_vision_language(resolve_model(path))
        with weights:
            return cls._empty(config, device, dtype).load_params(weights)

    @classmethod
    def _empty(
        cls, config: VisionLanguageConfig, device: str | torch.device, dtype: torch.dtype
    ) -> "VisionLanguageModel":
        with torch.device("meta"):
            model = cls(config)
        return model.to(dtype).to_empty(device=device)

    @torch.no_grad()
    def load_params(self, params: Mapping[str, np.ndarray]) -> "VisionLanguageModel":
        """Copy {name: array} into the parameters, converting to their dtype. Names and shapes must match exactly."""
        check_vision_language_params(self.config, params)
        for name, own in self.named_params().items():
            own.copy_(to_tensor(params[name]))
        return self

    def named_params(self) -> dict[str, nn.Parameter]:
        """name -> parameter, in core/vision/names.py's order; no lm_head.weight when tied."""
        own = dict(self.named_parameters())
        return {name: own[name] for name in vision_language_shapes(self.config)}


def splice(text: Tensor, rows: Tensor, is_image: Tensor) -> Tensor:
    """`text` (B,T,D) with the `rows` (N,n,D) of images in place of the embeddings where is_image (B,T)."""
    return text.masked_scatter(is_image[..., None], rows.to(text.dtype))
