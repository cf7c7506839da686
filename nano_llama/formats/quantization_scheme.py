"""Scheme: which matrix is stored in how many bits, as text: "int4" or "int4,head=int4,first=int8".

    int8       8 bits, symmetric: w = d q                    Q8_0, 8.5 bits per weight with its scale
    int4       4 bits, asymmetric: w = d q + m               Q4_1, 5
    int4-sym   4 bits, symmetric: w = d (q - 8)              Q4_0, 4.5
    float32, bfloat16, float16                               not quantized

in groups of 32 along a row, each rounded to nearest. The first word is for all matrices of the layers; embedding and
head, which suffer most, stay at int8 unless they are named. Then come exceptions, of which the last that matches holds:

    head, embedding     the head (in a tied model they are one matrix)
    first, last         the first or the last layer
    a pattern           of parameter names, as "*.down_proj.weight" or "model.layers.1?.*"

Of a model that reads images all this is about the LLaMA within it, under the LLaMA's own names. Encoder and projector
are int8.

Not here: rounding (gguf_quants.py), gemms (vol3_engine/cpu). Tests: tests/formats/test_quantization_scheme.py.
"""

import re
import warnings
from dataclasses import dataclass
from fnmatch import fnmatchcase

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.names import EMBED, LM_HEAD, parameter_shapes
from nano_llama.core.vision.config import ModelConfig, VisionLanguageConfig
from nano_llama.core.vision.names import text_name, vision_language_shapes, vision_shapes
from nano_llama.formats.kinds import WRITABLE_BLOCKS, Kind
from nano_llama.formats.mapping import TensorMapping

WORDS = {
    "int8": Kind.Q8_0, "int4": Kind.Q4_1, "int4-sym": Kind.Q4_0,
    "float32": Kind.F32, "bfloat16": Kind.BF16, "float16": Kind.F16,
}  # fmt: skip
_LAYER = r"\.\d+\."  # within a parameter's name
PLACES = ("head", "embedding", "first", "last")


@dataclass(frozen=True)
class Scheme:
    """Parsed and checked; made by `Scheme.parse`."""

    text: str
    layers: Kind  # of the layers' matrices
    exceptions: tuple[tuple[str, Kind], ...]  # (place or pattern, kind)

    @classmethod
    def parse(cls, text: str) -> "Scheme":
        """Raises UserError for unknown words."""
        first, *rest = (part.strip() for part in str(text).split(","))
        exceptions = []
        for part in rest:
            place, equals, word = (piece.strip() for piece in part.partition("="))
            if not equals or not place:
                raise UserError(
                    f"quantization={text!r}: {part!r} is not an exception.", hint="Write  place=word, as in  head=int8"
                )
            if place not in PLACES and not any(letter in place for letter in "*?[."):
                raise UserError(
                    f"quantization={text!r}: {place!r} is not a place.",
                    hint=f"Known: {', '.join(PLACES)}, or a pattern of names such as *.down_proj.weight",
                )
            exceptions.append((place, _kind(word, text)))
        return cls(text, _kind(first, text), tuple(exceptions))

    def kinds(self, config: LlamaConfig) -> dict[str, Kind]:
        """{name: kind} of every matrix; float32, with a warning, where its rows are not whole groups.

        Raises UserError where such a matrix is named, or most weights are in such; and for patterns without a match.
        """
        matrices = {name: shape for name, shape in parameter_shapes(config).items() if len(shape) == 2}
        found = {name: Kind.Q8_0 if name in (EMBED, LM_HEAD) else self.layers for name in matrices}
        if self.layers not in WRITABLE_BLOCKS:
            found = dict.fromkeys(matrices, self.layers)
        for place, kind in self.exceptions:
            matching = [name for name in matrices if _matches(name, place, config)]
            if not matching:
                raise UserError(f"quantization={self.text!r}: no matrix of this model matches {place!r}.")
            found |= dict.fromkeys(matching, kind)
        odd = [name for name, kind in found.items() if matrices[name][1] % kind.block_size]
        named = [name for name in odd if any(_matches(name, place, config) for place, _ in self.exceptions)]
        sizes = {name: rows * columns for name, (rows, columns) in matrices.items()}
        if named or 2 * sum(sizes[name] for name in odd) > sum(sizes.values()):
            name = (named or odd)[0]
            raise UserError(
                f"quantization={self.text!r}: {name} has rows of {matrices[name][1]} numbers, not whole groups of"
                f" {found[name].block_size}.",
                hint=f"Do not quantize it:  {re.sub(_LAYER, '.*.', name)}=float32",
            )
        for pattern, name in {re.sub(_LAYER, ".*.", name): name for name in odd}.items():
            warnings.warn(
                f"{pattern} stays in float32: its rows of {matrices[name][1]} numbers are not whole groups of"
                f" {found[name].block_size}.",
                stacklevel=2,
            )
        return found | dict.fromkeys(odd, Kind.F32)

    def kinds_with_images(self, config: VisionLanguageConfig) -> dict[str, Kind]:
        """The same of a model that reads images, under the names in its folder. Raises UserError.

        A matrix of the encoder whose rows are not whole groups is left out: it is stored as it is.
        """
        kind = Kind.Q8_0 if self.layers in WRITABLE_BLOCKS else self.layers
        whole = [name for name, shape in vision_shapes(config).items()
                 if len(shape) == 2 and shape[1] % kind.block_size == 0]  # fmt: skip
        return dict.fromkeys(whole, kind) | {
            text_name(name): own for name, own in self.kinds(config.text_config).items()
        }


def _kind(word: str, text: str) -> Kind:
    if word not in WORDS:
        raise UserError(f"quantization={text!r}: {word!r} is not known.", hint=f"Known: {', '.join(WORDS)}.")
    return WORDS[word]


def _matches(name: str, place: str, config: LlamaConfig) -> bool:
    layers = {"first": 0, "last": config.num_hidden_layers - 1}
    if place in layers:
        return name.startswith(f"model.layers.{layers[place]}.")
    if place in ("head", "embedding"):
        return name == (LM_HEAD if place == "head" and not config.tie_word_embeddings else EMBED)
    return fnmatchcase(name, place)


def base_kinds(text: str, config: LlamaConfig, weights: TensorMapping) -> dict[str, Kind]:
    """{name: kind} of every matrix of a frozen base, as the scheme says; blocks that the file has are kept as they are
    if they take fewer than 8 bits: rounding a second time would lose a second time. Raises UserError.
    """
    kinds = Scheme.parse(text).kinds(config)
    for name in kinds:
        stored = Kind.__members__.get(weights.dtype_name(name))
        if stored is not None and stored.bits_per_weight < 8:
            kinds[name] = stored
    return kinds


def bits_per_weight(kinds: dict[str, Kind], config: ModelConfig) -> float:
    """Mean over all matrices in `kinds`, scales included."""
    shapes = vision_language_shapes(config) if isinstance(config, VisionLanguageConfig) else parameter_shapes(config)
    counts = {name: shapes[name][0] * shapes[name][1] for name in kinds}
    return sum(kind.bits_per_weight * counts[name] for name, kind in kinds.items()) / sum(counts.values())
