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


def _ranges(listed: str) -> str:
    """ "41-5A B5": a character class, from the hexadecimal code points of its ranges."""
    return "".join("-".join(chr(int(end, 16)) for end in piece.split("-")) for piece in listed.split())


# DeepSeek's letters with case (Latin, Greek, Cyrillic ...) and its signs: by list, not by category.
_DEEPSEEK_LETTERS = _ranges(
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A 38C "
    "38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B "
    "1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 "
    "1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 "
    "2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B "
    "2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 "
    "FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF "
    "1E900-1E943"
)
_DEEPSEEK_SIGNS = _ranges("21-2F 3A-7E FF01-FF0F FF1A-FF5E 2018-201F 3000-3002")
_EAST_ASIAN = _ranges("4E00-9FA5 800-4E00 AC00-D7FF")
_NO_SENTENCE_SIGN = r" ?[^(\s|.,!?…。，、।۔،)]+"  # a word in Bloom's family


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
_DEEPSEEK = (r"[\r\n]", rf"\s?[{_DEEPSEEK_LETTERS}]+", rf"\s?[{_DEEPSEEK_SIGNS}]+", r"\s+$", f"[{_EAST_ASIAN}]+")
_DEEPSEEK_LLM = Recipe((*_DEEPSEEK, r"\p{N}+"))
_DEEPSEEK_CODER = Recipe((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", f"[{_EAST_ASIAN}]+", r"\p{N}"))
_BLOOM = Recipe((_NO_SENTENCE_SIGN,))
_VIKING = Recipe((_NO_SENTENCE_SIGN, r"\p{N}"))

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
    (_DEEPSEEK_LLM, "deepseek-llm"),
    (_DEEPSEEK_CODER, "deepseek-coder"),
    (_BLOOM, "bloom poro-chat gpt3-finnish"),
    (_VIKING, "viking"),
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
