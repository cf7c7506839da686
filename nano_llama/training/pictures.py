"""Runs that learn from pictures (data shapes-vqa): what their settings must be, their data, and where they start.

The model is a LLaMA (`init_from`) with a fresh image encoder, or one that has an encoder already.
Tests: tests/training/test_pictures.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.core.vision.config import VisionLanguageConfig
from nano_llama.core.vision.init import add_vision
from nano_llama.core.vision.presets import SCALE_FACTOR, encoder_preset
from nano_llama.data.vqa.dataset import PictureDataset, picture_dataset
from nano_llama.formats import open_weights, read_config, reads_images, resolve_model
from nano_llama.formats.vision_folder import open_vision_language, read_vision_language_config
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.image_token import image_token_id, with_image_token

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
) -> tuple[VisionLanguageConfig, Mapping[str, np.ndarray]]:
    """(config, weights) that the run begins with, by the names of a model with images.

    Raises UserError where the model's image token is not the tokenizer's, or its context is too short.
    """
    path = resolve_model(settings.init_from) if checkpoint is None else checkpoint
    weights: Mapping[str, np.ndarray]
    if reads_images(path):
        if settings.encoder is not None and checkpoint is None:
            raise UserError(
                f"encoder = {settings.encoder!r}, but {path} has one already.", hint="Leave --encoder out to go on."
            )
        config, weights = open_vision_language(path)
    else:
        encoder = encoder_preset(settings.encoder or DEFAULT_ENCODER)
        config, weights = add_vision(
            read_config(path), open_weights(path), encoder, scale_factor=SCALE_FACTOR, seed=settings.seed
        )
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
    return config, weights
