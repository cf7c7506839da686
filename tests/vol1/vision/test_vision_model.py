"""The whole model of Volume 1: its gradients, its images, its shards."""

import numpy as np
import pytest

from helpers.op_references import relative_error
from helpers.vision_cases import IMAGE, case, tiny_vision_language_config
from nano_llama.core.errors import FormatError, UserError
from nano_llama.vol1_numpy import gradcheck_model
from nano_llama.vol1_numpy.ops.registry import FAST, PLAIN
from nano_llama.vol1_numpy.vision import VisionLanguageModel


@pytest.mark.parametrize(
    "shape", [{}, {"tied": True}, {"scale_factor": 4}, {"patch_size": 4, "scale_factor": 1, "heads": 3}]
)
def test_differences(shape):
    config = tiny_vision_language_config(**shape)
    model = VisionLanguageModel.init(config, 0, np.float64, threads=1)
    tokens, targets, pixels = case(config)
    checks = gradcheck_model(model, tokens, targets, pixel_values=pixels, tolerance=1e-7, samples=2)
    assert {check.name for check in checks} == model.params.keys()


@pytest.mark.parametrize(
    "options", [{"micro_batch": 1}, {"recompute": True}, {"threads": 2}, {"threads": 3}, {"ops": PLAIN}]
)
def test_how_a_batch_is_cut_does_not_matter(options):
    config = tiny_vision_language_config()
    tokens, targets, pixels = case(config)
    whole = VisionLanguageModel.init(config, 0, np.float64, threads=1)
    model = VisionLanguageModel(config, whole.params, threads=options.pop("threads", 1), ops=options.pop("ops", FAST))
    loss, grads = whole.loss_and_grads(tokens, targets, pixels)
    other_loss, other = model.loss_and_grads(tokens, targets, pixels, **options)
    assert other_loss == pytest.approx(loss, rel=1e-12)
    assert model.loss(tokens, targets, pixels) == pytest.approx(loss, rel=1e-12)
    for name, grad in grads.items():
        if not name.endswith("k_proj.bias"):  # zero, save rounding
            assert relative_error(other[name], grad) < 1e-10, name


def test_each_image_matters_to_its_row_alone():
    config = tiny_vision_language_config()
    model = VisionLanguageModel.init(config, 0)
    tokens, _, pixels = case(config, dtype=np.float32)
    before = model.forward(tokens, pixels)
    pixels[2] = 0.3  # the only image of row 1; row 0 has two, row 2 none
    moved = np.abs(model.forward(tokens, pixels) - before).max(axis=-1)  # (B,T)
    assert not moved[[0, 2]].any()
    assert not moved[1, :2].any() and (moved[1, 2:] > 0).all()  # causal: what stands before it does not see it


def test_text_alone_is_the_llama():
    config = tiny_vision_language_config()
    model = VisionLanguageModel.init(config, 0)
    tokens = np.arange(12).reshape(2, 6)
    np.testing.assert_array_equal(model.forward(tokens), model.language_model.forward(tokens))
    _, grads = model.loss_and_grads(tokens, tokens)
    assert not any(grad.any() for name, grad in grads.items() if "vision_model" in name or "connector" in name)


def test_float32_stays_float32():
    config = tiny_vision_language_config()
    model = VisionLanguageModel.init(config, 0)
    tokens, targets, pixels = case(config)
    assert model.forward(tokens, pixels).dtype == np.float32
    assert {grad.dtype for grad in model.loss_and_grads(tokens, targets, pixels)[1].values()} == {np.dtype(np.float32)}


def test_training_changes_the_llama_in_place():
    model = VisionLanguageModel.init(tiny_vision_language_config(), 0)
    model.params["model.text_model.norm.weight"] *= 2
    assert (model.language_model.params["model.norm.weight"] == 2).all()


def test_learns_which_image_it_sees():
    """Two images that differ, two answers: gradient descent tells them apart."""
    config = tiny_vision_language_config()
    model = VisionLanguageModel.init(config, 0, np.float64, threads=1)
    tokens = np.array([[IMAGE] * 4 + [1], [IMAGE] * 4 + [1]])
    targets = np.full_like(tokens, -100)
    targets[:, -1] = 5, 6
    _, _, pixels = case(config)
    for _ in range(60):
        loss, grads = model.loss_and_grads(tokens, targets, pixels[:2])
        for name, grad in grads.items():
            model.params[name] -= 0.1 * grad
    assert loss < 0.1
    assert model.forward(tokens, pixels[1::-1])[:, -1].argmax(-1).tolist() == [6, 5]


@pytest.mark.parametrize(
    ("tokens", "images", "says"),
    [
        ([[IMAGE] * 4], 0, "0 images of 4 tokens each"),
        ([[1, 2, 3]], 1, "1 images"),
        ([[IMAGE] * 3], 1, "hold .3. image tokens"),
    ],
)
def test_images_and_their_places_agree(tokens, images, says):
    config = tiny_vision_language_config()
    model = VisionLanguageModel.init(config, 0)
    pixels = case(config)[2][:images]
    for call in (model.forward, lambda tokens, pixels: model.loss_and_grads(tokens, tokens, pixels)):
        with pytest.raises(UserError, match=says):
            call(np.array(tokens), pixels)


def test_other_parameters_are_refused():
    config = tiny_vision_language_config()
    params = dict(VisionLanguageModel.init(config).params)
    del params["model.connector.modality_projection.proj.weight"]
    with pytest.raises(FormatError, match="modality_projection"):
        VisionLanguageModel(config, params)


def test_saved_and_read_again(tmp_path):
    config = tiny_vision_language_config(tied=True)
    model = VisionLanguageModel.init(config, 0)
    model.save(tmp_path / "model")
    read = VisionLanguageModel.from_pretrained(tmp_path / "model", np.float64)
    tokens, _, pixels = case(config)
    assert read.config == config and read.dtype == np.float64
    assert relative_error(read.forward(tokens, pixels), model.forward(tokens, pixels)) < 1e-5
