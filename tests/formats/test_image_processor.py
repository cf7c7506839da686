"""The image processor's files: both layouts of transformers, and what is refused by name."""

import json

import pytest

from helpers.vision_cases import tiny_vision_language_config
from nano_llama.core.errors import ConfigError
from nano_llama.core.vision.image_processing import ImageProcessing
from nano_llama.formats.image_processor import read_image_processing

CONFIG = tiny_vision_language_config()  # 8 x 8 pixels, 4 tokens
WRITTEN = {
    "image_processor_type": "Idefics3ImageProcessor", "do_convert_rgb": True, "do_image_splitting": True,
    "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5], "max_image_size": {"longest_edge": 8}, "resample": 1,
    "rescale_factor": 0.00392156862745098, "size": {"longest_edge": 32},
}  # fmt: skip


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("split", [True, False])
def test_both_layouts(tmp_path, split):
    assert read_image_processing(tmp_path, CONFIG) is None
    meant = ImageProcessing(image_size=8, longest_edge=32, do_image_splitting=split)
    content = WRITTEN | {"do_image_splitting": split, "processor_class": "Idefics3Processor"}
    write(tmp_path, "preprocessor_config.json", content)
    write(tmp_path, "processor_config.json", {"image_seq_len": 4})
    assert read_image_processing(tmp_path, CONFIG) == meant
    (tmp_path / "preprocessor_config.json").unlink()
    write(tmp_path, "processor_config.json", {"image_processor": content, "image_seq_len": 4})
    assert read_image_processing(tmp_path, CONFIG) == meant


REFUSED = [
    ({"image_processor_type": "CLIPImageProcessor"}, "image_processor_type 'CLIPImageProcessor' is not read"),
    ({"max_image_size": {"longest_edge": 16}}, "max_image_size = 16, and this encoder reads images of 8 x 8"),
    ({"max_image_size": None}, "max_image_size = 364"),
    ({"size": {"height": 8, "width": 8}}, "size = .*only"),
    ({"size": {"longest_edge": 0}}, "size = "),
    ({"image_mean": [0.48, 0.46, 0.41]}, "image_mean = "),
    ({"do_rescale": False}, "do_rescale = False"),
    ({"do_resize": False}, "do_resize = False"),
    ({"resample": 3}, "resample = 3"),
    ({"rescale_factor": 1.0}, "rescale_factor = 1.0"),
    ({"do_image_splitting": "no"}, "do_image_splitting = 'no'"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED)
def test_refused_by_name(tmp_path, change, says):
    write(tmp_path, "preprocessor_config.json", WRITTEN | change)
    with pytest.raises(ConfigError, match=says) as refusal:
        read_image_processing(tmp_path, CONFIG)
    assert "preprocessor_config.json" in refusal.value.message


def test_files_that_contradict_the_model(tmp_path):
    write(tmp_path, "preprocessor_config.json", WRITTEN)
    write(tmp_path, "processor_config.json", {"image_seq_len": 169})
    with pytest.raises(ConfigError, match="image_seq_len = 169, but an image of this model is 4"):
        read_image_processing(tmp_path, CONFIG)
    write(tmp_path, "processor_config.json", [1])
    with pytest.raises(ConfigError, match="holds a list"):
        read_image_processing(tmp_path, CONFIG)
    write(tmp_path, "processor_config.json", {"image_processor": 3})
    with pytest.raises(ConfigError, match="image_processor = 3"):
        read_image_processing(tmp_path, CONFIG)
