"""How a folder of Hugging Face's says that its images are processed: Idefics3's and SmolVLM's image processor.

    preprocessor_config.json                       transformers 4, beside a processor_config.json with image_seq_len
    processor_config.json, in "image_processor"    transformers 5

A folder without either, such as one of ours, has images stretched to the encoder's square. What would make other pixels
than core/vision/image_processing.py is refused by name. Tests: tests/formats/test_image_processor.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nano_llama.core.errors import ConfigError
from nano_llama.core.files import read_json
from nano_llama.core.vision.config import VisionLanguageConfig
from nano_llama.core.vision.image_processing import ImageProcessing

_PREPROCESSOR, _PROCESSOR = "preprocessor_config.json", "processor_config.json"
_MAX_BYTES = 2**20
_KINDS = ("Idefics3ImageProcessor", "SmolVLMImageProcessor")
_ENDINGS = ("", "Fast", "Pil")  # of the same thing on other libraries
_EDGES = {"size": 4 * 364, "max_image_size": 364}  # transformers' own, where a file leaves them out
_MUST_BE: dict[str, Any] = {  # what to_pixel_values and ImageProcessing compute
    "do_convert_rgb": True,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 1,  # Lanczos
}


def processor_files(folder: Path) -> list[Path]:
    """Those of the folder that say it: what is made of its model needs a copy."""
    return [file for name in (_PREPROCESSOR, _PROCESSOR) if (file := folder / name).is_file()]


def read_image_processing(folder: Path, config: VisionLanguageConfig) -> ImageProcessing | None:
    """What the folder says for a model of this shape; None: nothing. Raises ConfigError, FormatError."""
    processor = _read(folder / _PROCESSOR)
    nested = processor.get("image_processor")
    raw, source = (nested, folder / _PROCESSOR) if nested is not None else (None, folder / _PREPROCESSOR)
    raw = _read(source) if raw is None else raw
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source}: image_processor = {raw!r:.80}: an object was expected.")
    if not raw:
        return None
    _check(raw, str(source))
    S, edge = config.vision_config.image_size, _edge(raw, "max_image_size", str(source))
    if edge != S:
        raise ConfigError(
            f"{source}: max_image_size = {edge}, and this encoder reads images of {S} x {S} only.",
            hint=f'Set {{"longest_edge": {S}}} there: for other sizes no positions were learned.',
        )
    n, said = config.image_seq_len, processor.get("image_seq_len", config.image_seq_len)
    if said != n:
        raise ConfigError(f"{folder / _PROCESSOR}: image_seq_len = {said!r:.40}, but an image of this model is {n}.")
    split = raw.get("do_image_splitting", True)
    if not isinstance(split, bool):
        raise ConfigError(f"{source}: do_image_splitting = {split!r:.40} is neither true nor false.")
    return ImageProcessing(
        image_size=S, longest_edge=_edge(raw, "size", str(source)), do_image_splitting=split
    )  # fmt: skip


def _read(file: Path) -> Mapping[str, Any]:
    """{} where there is no such file."""
    if not file.is_file():
        return {}
    content = read_json(file, what="image processor's config", max_bytes=_MAX_BYTES)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{file} holds a {type(content).__name__}, not an object.")
    return content


def _check(raw: Mapping[str, Any], source: str) -> None:
    kind = raw.get("image_processor_type", _KINDS[0])
    if kind not in {name + ending for name in _KINDS for ending in _ENDINGS}:
        raise ConfigError(
            f"{source}: image_processor_type {kind!r:.80} is not read here.", hint=f"Known: {', '.join(_KINDS)}."
        )
    for key, computed in _MUST_BE.items():
        given = raw.get(key)
        if given is not None and not _same(given, computed):
            raise ConfigError(f"{source}: {key} = {given!r:.80}; images are processed with {computed!r} only.")


def _same(given: Any, computed: Any) -> bool:
    if isinstance(computed, float):
        return isinstance(given, float) and abs(given - computed) < 1e-9
    return type(given) is type(computed) and given == computed


def _edge(raw: Mapping[str, Any], key: str, source: str) -> int:
    """Of {"longest_edge": pixels}."""
    given = raw.get(key)
    value = _EDGES[key] if given is None else given.get("longest_edge") if isinstance(given, Mapping) else None
    others = isinstance(given, Mapping) and any(given[name] is not None for name in given if name != "longest_edge")
    if others or type(value) is not int or not 0 < value <= 2**16:
        raise ConfigError(f'{source}: {key} = {given!r:.80}; only {{"longest_edge": pixels}} is read here.')
    return value
