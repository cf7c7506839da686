"""Which matrix is kept in how many bits: a scheme such as "int4" or "int4,head=int4,first=int8".

    int8       8 bits, symmetric: w = d q                    GGUF's Q8_0      8.5 bits a weight with its scale
    int4       4 bits, asymmetric: w = d q + m               Q4_1             5
    int4-sym   4 bits, symmetric: w = d (q - 8)              Q4_0             4.5
    float32, bfloat16, float16                               not quantized

in groups of 32 along a row, each rounded to nearest. The first word is for all matrices of the layers; embedding and
head, which suffer most, stay at int8 unless they are named. Then exceptions, of which the last that fits holds:

    head, embedding     the head (in a tied model they are one matrix)
    first, last         the first or the last layer
    a pattern           of parameters' names, as "*.down_proj.weight" or "model.layers.1?.*"

Not here: rounding (formats/gguf_quants.py) and products (cpu/kernels/). Tests: tests/vol3/test_quantization.py.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.names import EMBED, LM_HEAD, parameter_shapes
from nano_llama.formats.gguf_quants import KINDS, NUMBER_OF

KIND_OF = {
    "int8": "Q8_0", "int4": "Q4_1", "int4-sym": "Q4_0", "float32": "F32", "bfloat16": "BF16", "float16": "F16",
}  # fmt: skip
QUANTIZED = ("Q8_0", "Q4_1", "Q4_0")
PLACES = ("head", "embedding", "first", "last")


@dataclass(frozen=True)
class Scheme:
    """Parsed and checked; make it with `Scheme.parse`."""

    text: str
    layers: str  # kind of the layers' matrices
    exceptions: tuple[tuple[str, str], ...]  # (place or pattern, kind)

    @classmethod
    def parse(cls, text: str) -> "Scheme":
        """Raises UserError for words that are none of the above."""
        first, *rest = (part.strip() for part in str(text).split(","))
        exceptions = []
        for part in rest:
            place, equals, word = (piece.strip() for piece in part.partition("="))
            if not equals or not place:
                raise UserError(
                    f"quantization={text!r}: {part!r} is no exception.", hint="Write  place=word, as in  head=int8"
                )
            if place not in PLACES and not any(letter in place for letter in "*?[."):
                raise UserError(
                    f"quantization={text!r}: {place!r} is no place.",
                    hint=f"Known: {', '.join(PLACES)}, or a pattern of names such as *.down_proj.weight",
                )
            exceptions.append((place, _kind(word, text)))
        return cls(text, _kind(first, text), tuple(exceptions))

    def kinds(self, config: LlamaConfig) -> dict[str, str]:
        """name -> "Q4_1", "BF16" ... for every matrix. Raises UserError where rows are not whole groups, or a pattern
        fits nothing."""
        matrices = {name: shape for name, shape in parameter_shapes(config).items() if len(shape) == 2}
        found = {name: "Q8_0" if name in (EMBED, LM_HEAD) else self.layers for name in matrices}
        if self.layers not in QUANTIZED:
            found = dict.fromkeys(matrices, self.layers)
        for place, kind in self.exceptions:
            fitting = [name for name in matrices if _fits(name, place, config)]
            if not fitting:
                raise UserError(f"quantization={self.text!r}: no matrix of this model is {place!r}.")
            found |= dict.fromkeys(fitting, kind)
        for name, kind in found.items():
            numbers = KINDS[NUMBER_OF[kind]].numbers
            if matrices[name][1] % numbers:
                raise UserError(
                    f"quantization={self.text!r}: {name} has rows of {matrices[name][1]} numbers, not whole groups of"
                    f" {numbers}.",
                    hint=f"Leave it as it is:  {name}=float32",
                )
        return found


def _kind(word: str, text: str) -> str:
    if word not in KIND_OF:
        raise UserError(f"quantization={text!r}: {word!r} is not known.", hint=f"Known: {', '.join(KIND_OF)}.")
    return KIND_OF[word]


def _fits(name: str, place: str, config: LlamaConfig) -> bool:
    layers = {"first": 0, "last": config.num_hidden_layers - 1}
    if place in layers:
        return name.startswith(f"model.layers.{layers[place]}.")
    if place in ("head", "embedding"):
        return name == (LM_HEAD if place == "head" and not config.tie_word_embeddings else EMBED)
    return fnmatchcase(name, place)


def bits_per_weight(kinds: dict[str, str], config: LlamaConfig) -> float:
    """Mean bits a weight of the matrices takes, scales included."""
    shapes = parameter_shapes(config)
    counts = {name: shapes[name][0] * shapes[name][1] for name in kinds}
    bits = {name: 8 * KINDS[NUMBER_OF[kind]].nbytes / KINDS[NUMBER_OF[kind]].numbers for name, kind in kinds.items()}
    return sum(bits[name] * counts[name] for name in kinds) / sum(counts.values())
