"""Which of a model folder's files hold its weights, in the order in which transformers looks for them.

    config.json: "transformers_weights"     the file that the config names; otherwise the first of these:
    model.safetensors
    model.safetensors.index.json            shards in safetensors
    pytorch_model.bin                       older: a .pth without a config
    pytorch_model.bin.index.json            shards of that kind

Other weight files in the folder are not read; a warning says so where they could be taken for the model.

Tests: tests/formats/test_weight_files.py.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nano_llama.core.errors import FormatError
from nano_llama.core.files import read_json
from nano_llama.formats.mapping import Selection, TensorMapping, same_tensor
from nano_llama.formats.safetensors import MAX_HEADER_BYTES, SafetensorsFile

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
OLD_WEIGHTS, OLD_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
WEIGHT_FILES = (WEIGHTS, INDEX, OLD_WEIGHTS, OLD_INDEX)
NAMED_BY_CONFIG = "transformers_weights"
_SHARD = re.compile(r".+-(\d{5})-of-(\d{5})\.(safetensors|bin|gguf)")


def open_weight_files(folder: Path, raw_config: Mapping[str, Any]) -> TensorMapping:
    """The folder's weights as they are stored. Raises FormatError, UserError."""
    named = raw_config.get(NAMED_BY_CONFIG)
    if named is not None:
        return _open_named(folder, named)
    there = [file for file in WEIGHT_FILES if (folder / file).is_file()]
    if not there:
        raise FormatError(
            f"{folder} holds no weights: none of {', '.join(WEIGHT_FILES)}.",
            hint="Name the weight file itself if it has another name.",
        )
    if there[:2] == [WEIGHTS, INDEX]:
        warnings.warn(
            f"{folder}: {WEIGHTS} is read, as in transformers; the shards of {INDEX} are not."
            " Remove one of the two if it is left over from another model.",
            stacklevel=2,
        )
    return _open(folder / there[0])


def shard_of(path: Path) -> tuple[int, int] | None:
    """(2, 3) for model-00002-of-00003.safetensors, None for a file that is not named as a shard."""
    found = _SHARD.fullmatch(path.name)
    return (int(found[1]), int(found[2])) if found else None


def open_sharded(index_path: Path) -> TensorMapping:
    """Join the shards that an index lists, with all their tensors, as transformers does. Raises FormatError."""
    index = read_json(index_path, what="weight index", max_bytes=MAX_HEADER_BYTES)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{index_path}: no weight_map, which should say which shard holds which tensor.")
    suffix = ".bin" if index_path.name.endswith(".bin.index.json") else ".safetensors"
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or shard != Path(shard).name or not shard.endswith(suffix):
            raise FormatError(f"{index_path}: {name!r:.80} is said to be in {shard!r:.80}, not a {suffix} beside it.")
    source_of: dict[str, TensorMapping] = {}
    for shard in sorted(set(weight_map.values())):
        opened = _open_file(index_path.parent / shard)
        for name in opened:
            if name in source_of and not same_tensor(source_of[name], name, opened, name):
                raise FormatError(
                    f"{index_path.parent}: {name!r:.80} is in {source_of[name].path.name} and in {shard}, and differs.",
                    hint="The shards are of different models. Download the folder again.",
                )
            source_of[name] = opened
    missing = weight_map.keys() - source_of.keys()
    if missing:
        name = min(missing)
        raise FormatError(
            f"{index_path}: {name!r:.80} is not in {weight_map[name]}.", hint="Download the folder again."
        )
    return Selection(index_path.parent, source_of)


def _open_named(folder: Path, named: Any) -> TensorMapping:
    plain = isinstance(named, str) and "\0" not in named and Path(named).name == named
    if not plain or not named.endswith((".safetensors", ".safetensors.index.json")) or not (folder / named).is_file():
        raise FormatError(
            f"{folder}: {named!r:.80}, named by config.json as its {NAMED_BY_CONFIG}, is not a safetensors file there.",
            hint="Put that file into the folder, or take the key out of config.json.",
        )
    return _open(folder / named)


def _open(path: Path) -> TensorMapping:
    return open_sharded(path) if path.name.endswith(".index.json") else _open_file(path)


def _open_file(path: Path) -> TensorMapping:
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    from nano_llama.formats.pth import PthFile

    return PthFile(path)
