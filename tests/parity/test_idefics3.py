"""Both volumes and the engine against transformers' Idefics3ForConditionalGeneration, on the same random weights."""

import numpy as np
import pytest

from helpers.op_references import relative_error
from helpers.vision_cases import IMAGE, case, tiny_vision_language_config
from nano_llama import LLM
from nano_llama.formats.vision_config import vision_language_to_hf
from nano_llama.vol1_numpy.vision import VisionLanguageModel as NumpyModel
from nano_llama.vol3_engine.batch import Chunk, Embeddings, PackedBatch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from nano_llama.vol2_torch.vision import VisionLanguageModel  # noqa: E402


def theirs(config):
    raw = vision_language_to_hf(config)
    shapes = {
        key: raw[key]
        for key in ("image_token_id", "scale_factor", "tie_word_embeddings", "text_config", "vision_config")
    }
    return transformers.Idefics3ForConditionalGeneration(transformers.Idefics3Config(**shapes, pad_token_id=0)).eval()


@pytest.mark.parametrize("shape", [{}, {"tied": True}, {"patch_size": 1, "scale_factor": 4, "heads": 1},
                                   {"patch_size": 3}])  # fmt: skip
def test_logits(shape):
    """A state dict moves as it is; a tied head, which they list too, is the embedding."""
    config = tiny_vision_language_config(**shape)
    reference = theirs(config)
    with torch.no_grad():  # they begin with biases of zero
        for param in reference.parameters():
            param.add_(0.1 * torch.randn(param.shape, generator=torch.Generator().manual_seed(param.numel())))
    state = reference.state_dict()
    if config.text_config.tie_word_embeddings:
        assert torch.equal(state.pop("lm_head.weight"), state["model.text_model.embed_tokens.weight"])
    model = VisionLanguageModel(config)
    model.load_state_dict(state, strict=True)
    tokens, _, pixels = case(config, dtype=np.float32)
    by_hand = NumpyModel(config, {name: value.numpy() for name, value in state.items()})
    for row, images in ((0, slice(0, 2)), (1, slice(2, 3))):
        ids, values = torch.tensor(tokens[row : row + 1]), torch.tensor(pixels[images])
        with torch.no_grad():
            expected = reference(input_ids=ids, pixel_values=values[None]).logits
            assert relative_error(model(ids, values), expected) < 1e-5
        assert relative_error(by_hand.forward(tokens[row : row + 1], pixels[images]), expected) < 1e-5


@pytest.mark.parametrize("runner", ["cpu", "numpy"])
def test_logits_of_the_engine_on_a_folder_of_theirs(tmp_path, runner):
    """As transformers writes it, without its processor; a prompt of ids with one image token for each picture."""
    config = tiny_vision_language_config(std=0.1)
    reference = theirs(config)
    reference.save_pretrained(tmp_path)
    _, _, pixels = case(config, dtype=np.float32)
    images = ((pixels + 1) * 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1)  # (3,8,8,3)
    with LLM(tmp_path, runner=runner, device="cpu", num_threads=1) as llm:
        read = [llm.images.read(image) for image in images[:2]]
        ids = llm.images.expand([1, IMAGE, 2, IMAGE, 3], read)
        rows = [Embeddings(placed.start, placed.image.rows) for placed in llm.images.place(ids, read)]
        chunk = Chunk(ids, 0, len(ids), [3, 1], num_logits=len(ids), embeddings=rows)
        logits = llm.engine.runner.execute(PackedBatch.pack([chunk]))  # (T,V)
        with torch.no_grad():
            expected = reference(input_ids=torch.tensor([ids]), pixel_values=torch.tensor(pixels[None, :2])).logits[0]
        assert relative_error(logits, expected) < 1e-5
