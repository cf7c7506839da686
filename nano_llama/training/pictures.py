"""Runs that learn from pictures (data shapes-vqa): what their settings must be, their data, and where they start.

The model is a LLaMA (`init_from`) with a fresh image encoder, or one that has an encoder already.
Tests: tests/training/test_pictures.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.core.lora import adapter_shapes
from nano_llama.core.vision.config import VisionLanguageConfig
from nano_llama.core.vision.init import add_vision
from nano_llama.core.vision.names import language_model, text_name
from nano_llama.core.vision.presets import SCALE_FACTOR, encoder_preset
from nano_llama.data.vqa.dataset import PictureDataset, picture_dataset
from nano_llama.formats import open_weights, read_config, reads_images, resolve_model
from nano_llama.formats.vision_folder import open_vision_language, read_vision_language_config
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.image_token import image_token_id, with_image_token
from nano_llama.training.picture_files import check_same_base, open_with_factors

DEFAULT_ENCODER = "nano"


def picture_data(settings: Any, run: Path | None) -> PictureDataset:
    """The pictures, with questions as the model's tokenizer encodes them. run: the folder of a run that is resumed."""
    path = run if run is not None else resolve_model(settings.init_from)
    tokenizer = Tokenizer.from_pretrained(path)
    if image_token_id(tokenizer) is None:
        tokenizer = with_image_token(tokenizer)
    if reads_images(path):
        image_seq_len = read_vision_language_config(path).image_seq_len
    else:
        image_seq_len = encoder_preset(settings.encoder or DEFAULT_ENCODER).image_seq_len(SCALE_FACTOR)
    return picture_dataset(
        tokenizer, image_seq_len, tasks=settings.task_names, single_first=settings.single_first, seed=settings.seed
    )


def picture_start(
    settings: Any, dataset: PictureDataset, checkpoint: Path | None
) -> tuple[VisionLanguageConfig, Mapping[str, np.ndarray], Mapping[str, np.ndarray] | None]:
    """(config, weights, adapter) that the run begins with, by the names of a model with images.

    adapter: the LLaMA's factors in a checkpoint that has some; the LLaMA beneath is then the one of init_from.
    Raises UserError where the model's image token is not the tokenizer's, its context is too short, or the LLaMA of
    init_from is not the one that the factors belong to.
    """
    path = resolve_model(settings.init_from) if checkpoint is None else checkpoint
    config, weights = open_vision_language(path) if checkpoint else _model_with_encoder(settings, path)
    if config.image_token_id != image_token_id(dataset.tokenizer):
        raise UserError(
            f"{path}: its tokenizer's image token has the id {image_token_id(dataset.tokenizer)}, "
            f"the model's is {config.image_token_id}.",
            hint="Start from a model with as many token ids as its tokenizer has.",
        )
    longest = config.text_config.max_position_embeddings
    if settings.context > longest:
        raise UserError(
            f"context = {settings.context} is longer than the {longest} positions of {path}.",
            hint=f"Use --context {longest} or less.",
        )
    if checkpoint is None or settings.lora is None:
        return config, weights, None
    base = language_model(_model_with_encoder(settings, resolve_model(settings.init_from))[1])
    check_same_base(checkpoint, base, settings.init_from)
    saved = open_with_factors(checkpoint)
    factors = {name: saved[name] for name in map(text_name, adapter_shapes(settings.lora, config.text_config))}
    return config, {**weights, **base}, factors


def _model_with_encoder(settings: Any, path: Path) -> tuple[VisionLanguageConfig, Mapping[str, np.ndarray]]:
    """The model that init_from names: with the encoder that it has, or a new one."""
    if reads_images(path):
        if settings.encoder is not None:
            raise UserError(
                f"encoder = {settings.encoder!r}, but {path} has one already.", hint="Leave --encoder out to go on."
            )
        return open_vision_language(path)
    if settings.freeze_encoder:
        raise UserError(
            f"freeze_encoder = True, but {path} has no encoder, and a new one has learned nothing.",
            hint="Start from a model that sees already, or leave freeze_encoder out.",
        )
    encoder = encoder_preset(settings.encoder or DEFAULT_ENCODER)
    return add_vision(read_config(path), open_weights(path), encoder, scale_factor=SCALE_FACTOR, seed=settings.seed)
