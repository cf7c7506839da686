"""Pre-tokenizers by the names that GGUF files use: how text is split into words before BPE merges within them.

A GGUF file holds a vocabulary and merges, but only a name for the splitting. A wrong split silently gives wrong ids, so
a name that is not here is refused. Each family below was published with a model; names in one row split alike.

Patterns: the tokenizer.json of the models named.
Tests: tests/tokenizer/test_gguf_tokenizer.py.
"""

import json
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import Regex, models, pre_tokenizers

from nano_llama.core.errors import FormatError

_LETTERS_OR_MARKS = r"\p{Lm}\p{Lo}\p{M}"
_UPPER = rf"[\p{{Lu}}\p{{Lt}}{_LETTERS_OR_MARKS}]"
_LOWER = rf"[\p{{Ll}}{_LETTERS_OR_MARKS}]"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _words(digits: str, symbols: str = r" ?[^\s\p{L}\p{N}]+[\r\n]*") -> str:
    """Llama 3's pattern and similar ones: a word may begin with any one sign; digits come in groups of a fixed size."""
    return rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}|{symbols}|{_SPACE}"


def _cased_words(digits: str, contraction: str) -> str:
    """Words also end where lower case meets upper case."""
    sign = r"[^\r\n\p{L}\p{N}]?"
    lower, upper = rf"{sign}{_UPPER}*{_LOWER}+{contraction}", rf"{sign}{_UPPER}+{_LOWER}*{contraction}"
    return rf"{lower}|{upper}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACE}"


@dataclass(frozen=True)
class Recipe:
    """patterns: applied one after the other, each splitting the pieces left by the one before. None: GPT-2's own.

    single_digits: every digit is a word, before anything else.
    ignore_merges: a whole word that is in the vocabulary is that token, whatever the merges say.
    adds_bos: where a file does not say, a text begins with BOS.
    """

    patterns: tuple[str, ...] | None = None
    single_digits: bool = False
    ignore_merges: bool = False
    adds_bos: bool = False

    def build(self) -> pre_tokenizers.PreTokenizer:
        steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if self.single_digits else []
        steps += [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in self.patterns or ()]
        steps += [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.patterns is None)]
        return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


GPT2 = Recipe()
SMOLLM = Recipe(single_digits=True)
LLAMA3 = Recipe((_words(r"\p{N}{1,3}"),), ignore_merges=True, adds_bos=True)
_LLAMA3_MERGING = Recipe((_words(r"\p{N}{1,3}"),))
_QWEN2 = Recipe((_words(r"\p{N}"),))
_SEED = Recipe((_words(r"\p{N}", symbols=r" ?[^\s\p{L}\p{N}\r\n]+"),))
_TEKKEN = Recipe((_cased_words(r"\p{N}", ""),), ignore_merges=True, adds_bos=True)
_GPT4O = Recipe((_cased_words(r"\p{N}{1,3}", f"{_CONTRACTION}?"),))
_DEFAULT = Recipe(
    (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
)  # llama.cpp's, for files from before names

# The first name of a row is the one that an export writes.
_FAMILIES = (
    (GPT2, "gpt-2 phi-2 mpt olmo jais trillion granite-docling a.x-4.0 mellum gigachat exaone4 modern-bert"),
    (SMOLLM, "smollm starcoder refact command-r codeshell exaone minerva-7b"),
    (LLAMA3, "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2"),
    (_LLAMA3_MERGING, "dbrx smaug-bpe chatglm-bpe glm4"),
    (_QWEN2, "qwen2 deepseek-r1-qwen kormo stablelm2 megrez hunyuan solar-open grok-2"),
    (_SEED, "seed-coder"),
    (_TEKKEN, "tekken"),
    (_GPT4O, "gpt-4o llama4"),
    (_DEFAULT, "default"),
)
RECIPES = {name: recipe for recipe, names in _FAMILIES for name in names.split()}


def recipe_named(name: str, where: str) -> Recipe:
    """The recipe of a GGUF file's `tokenizer.ggml.pre`. Raises FormatError for one not known here."""
    if name not in RECIPES:
        raise FormatError(
            f"{where}: the pre-tokenizer {name!r:.60} is not known here, and guessing would give wrong tokens.",
            hint=f"Known: {', '.join(sorted(RECIPES))}. Convert the model from its Hugging Face folder instead.",
        )
    return RECIPES[name]


def name_of(pre_tokenizer: dict[str, Any] | None, ignore_merges: bool) -> str | None:
    """The GGUF name of a tokenizer.json's `pre_tokenizer`, or None if it has none here."""
    for recipe, names in _FAMILIES:
        if recipe.ignore_merges == ignore_merges and _normalized(_as_json(recipe)) == _normalized(pre_tokenizer):
            return names.split()[0]
    return None


def _as_json(recipe: Recipe) -> dict[str, Any]:
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = recipe.build()
    return json.loads(library.to_str())["pre_tokenizer"]


def _normalized(part: Any) -> Any:
    """A part without what changes only offsets, and a Sequence of one step as that step."""
    if isinstance(part, list):
        return [_normalized(step) for step in part]
    if not isinstance(part, dict):
        return part
    if part.get("type") == "Sequence" and len(part["pretokenizers"]) == 1:
        return _normalized(part["pretokenizers"][0])
    return {name: _normalized(value) for name, value in part.items() if name != "trim_offsets"}
