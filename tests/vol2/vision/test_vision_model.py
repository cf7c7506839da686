"""Volume 2's model with images against Volume 1's, and what only it does: caches, sharing, state dicts."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.op_references import relative_error
from helpers.vision_cases import case, tiny_vision_language_config
from nano_llama.core.errors import UserError
from nano_llama.core.vision.names import vision_language_shapes
from nano_llama.vol1_numpy.vision import VisionLanguageModel as NumpyModel
from nano_llama.vol2_torch import KVCache, Llama
from nano_llama.vol2_torch.vision import VisionLanguageModel


@pytest.mark.parametrize("shape", [{}, {"tied": True}, {"patch_size": 4, "scale_factor": 1, "heads": 3}])
def test_logits_and_every_gradient_are_volume_1s(shape):
    config = tiny_vision_language_config(**shape)
    by_hand = NumpyModel.init(config, 0, np.float64, threads=2)
    model = VisionLanguageModel.init(config, 0, dtype=torch.float64)
    tokens, targets, pixels = case(config)
    logits = model(torch.tensor(tokens), torch.tensor(pixels))
    assert relative_error(by_hand.forward(tokens, pixels), logits.detach()) < 1e-12
    loss = F.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten())
    loss.backward()
    their_loss, grads = by_hand.loss_and_grads(tokens, targets, pixels)
    assert their_loss == pytest.approx(loss.item(), rel=1e-12)
    assert list(model.named_params()) == list(grads)
    for name, param in model.named_params().items():
        if name.endswith("self_attn.k_proj.bias"):  # zero, save rounding
            assert max(np.abs(grads[name]).max(), param.grad.abs().max()) < 1e-14
        else:
            assert relative_error(grads[name], param.grad) < 1e-10, name


@pytest.mark.parametrize("tied", [False, True])
def test_each_parameter_has_one_name(tied):
    config = tiny_vision_language_config(tied=tied)
    state = VisionLanguageModel.init(config).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == vision_language_shapes(config)


def test_a_copy_shares_nothing_with_its_original():
    model = VisionLanguageModel.init(tiny_vision_language_config())
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.text_model.norm.weight.mul_(2)
    assert (other.language_model.model.norm.weight == 2).all()
    assert (model.language_model.model.norm.weight == 1).all()


def test_moved_to_another_dtype_it_is_still_one_model():
    model = VisionLanguageModel.init(tiny_vision_language_config()).double()
    assert model.dtype == model.language_model.model.norm.weight.dtype == torch.float64


def test_around_a_llama_that_is_there():
    config = tiny_vision_language_config()
    llama = Llama.init(config.text_config, seed=5)
    model = VisionLanguageModel(config, llama)
    tokens = torch.arange(12).reshape(2, 6)
    assert torch.equal(model(tokens), llama(tokens))


def test_with_a_cache_token_by_token():
    config = tiny_vision_language_config()
    model = VisionLanguageModel.init(config, dtype=torch.float64)
    tokens, _, pixels = case(config)
    tokens, pixels = torch.tensor(tokens[:1]), torch.tensor(pixels[:2])
    whole, cache = model(tokens, pixels), KVCache(config.text_config, 1, 32, dtype=torch.float64)
    first = 2 * config.image_seq_len
    parts = [model(tokens[:, :first], pixels, cache=cache)]
    parts += [model(tokens[:, t : t + 1], cache=cache) for t in range(first, tokens.shape[1])]
    assert relative_error(torch.cat(parts, 1).detach(), whole.detach()) < 1e-12


def test_images_and_their_places_agree():
    config = tiny_vision_language_config()
    model = VisionLanguageModel.init(config)
    tokens, _, pixels = case(config)
    with pytest.raises(UserError, match="2 images of 4 tokens each"):
        model(torch.tensor(tokens), torch.tensor(pixels[:2]))
    with pytest.raises(UserError, match="this encoder reads"):
        model(torch.tensor(tokens), torch.zeros(3, 3, 4, 4))


def test_a_folder_that_volume_1_wrote(tmp_path):
    config = tiny_vision_language_config()
    by_hand = NumpyModel.init(config, 0)
    by_hand.save(tmp_path / "model")
    params = VisionLanguageModel.from_pretrained(tmp_path / "model").named_params()
    assert all(np.array_equal(params[name].detach(), value) for name, value in by_hand.params.items())
