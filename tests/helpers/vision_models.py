"""Folders of tiny models that read images, pictures for them, and Volume 2's naive greedy generation."""

import numpy as np
import torch

from helpers.vision_cases import IMAGE, tiny_vision_language_config
from nano_llama.core.vision import to_pixel_values
from nano_llama.formats.vision_folder import save_vision_language
from nano_llama.vol2_torch.vision import VisionLanguageModel


def save_tiny(folder, seed=1, tokenizer=None, vocab_size=23, image_token_id=IMAGE, context=160, **shape):
    """A model of images of 8 x 8 pixels, each 4 tokens (n=16 with patch_size=1), saved in `folder` -> Volume 2's."""
    config = tiny_vision_language_config(**shape)
    text = config.text_config.replace(vocab_size=vocab_size, max_position_embeddings=context)
    config = config.replace(text_config=text, image_token_id=image_token_id)
    model = VisionLanguageModel.init(config, seed).eval()
    with torch.no_grad():  # fresh biases are zero, and one picture's rows are too much like another's
        for name, param in model.named_parameters():
            if "position_embedding" in name:
                param.mul_(0.2)  # drawn large, they would drown what so few pixels show
            param.add_(0.2 * torch.randn(param.shape, generator=torch.Generator().manual_seed(len(name))))
    arrays = {name: param.detach().numpy() for name, param in model.named_params().items()}
    save_vision_language(folder, config, arrays, tokenizer=tokenizer)
    return model


def picture(seed, size=8):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def naive(model, prompt, images, count):
    """Greedy, the whole text anew for each token, the image token banned. prompt: ids, one image token per image."""
    config, given = model.config, len(prompt)
    ids = [same for i in prompt for same in [i] * (config.image_seq_len if i == config.image_token_id else 1)]
    pixels = torch.from_numpy(to_pixel_values(np.stack(images))) if images else None
    start = len(ids)
    assert start >= given
    with torch.no_grad():
        for _ in range(count):
            logits = model(torch.tensor([ids]), pixels)[0, -1]
            logits[config.image_token_id] = -torch.inf
            ids.append(int(logits.argmax()))
    return ids[start:]
