"""Tokenizers out of GGUF metadata: SmolLM2's real file beside transformers, every family of names, damage refused."""

import json
import random
import re

import pytest
from tokenizers import Tokenizer as Library

from nano_llama.core.errors import FormatError
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.gguf import from_metadata
from nano_llama.tokenizer.pretokenizers import RECIPES, name_of

from .conftest import CHATML, CORPUS, HARD_TEXTS


@pytest.fixture(scope="module")
def real(smollm2) -> Tokenizer:
    return Tokenizer.from_pretrained(smollm2)


@pytest.fixture(scope="module")
def metadata(bpe):
    """Our small BPE as a GGUF file would hold it."""
    model = bpe.backend.document["model"]
    tokens = [token for token, _ in sorted(model["vocab"].items(), key=lambda entry: entry[1])]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] + [1] * (len(tokens) - 1),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.chat_template": CHATML,
    }


def random_texts(count: int) -> list[str]:
    draw = random.Random(0)
    parts = [
        "a",
        "B",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "é",
        "日本",
        "🙂",
        "👩‍👩‍👧",
        "'s",
        "'LL",
        "_",
        "-",
        "...",
        "\u00a0",
        "हि",
        "word",
    ]
    return ["".join(draw.choice(parts) for _ in range(draw.randint(1, 30))) for _ in range(count)]


def test_smollm2_is_transformers_token_by_token(real, smollm2):
    """transformers leaves out that SmolLM2 cuts off every digit (llama.cpp and the model's tokenizer.json have it).
    That shows where white space stands before a digit, so texts with a digit are compared word by word.
    """
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    words = [word for text in CORPUS[:3] for word in re.findall(r" ?\S+", text)]
    plain = [text for text in HARD_TEXTS if not re.search(r"[\d½Ⅷ٣௧²]", text)]
    for text in [*words, *plain, *random_texts(200)]:
        ids = real.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False, split_special_tokens=True), text
        assert real.decode(ids) == text == theirs.decode(ids)
    for text in ("<|im_start|>user\nHi<|im_end|>\n", "<|endoftext|><repo_name>x"):
        assert real.encode(text, parse_special=True) == theirs.encode(text, add_special_tokens=False)
    assert [real.backend.id_to_token(i) for i in range(real.vocab_size)] == theirs.convert_ids_to_tokens(
        range(len(theirs))
    )
    roles = (theirs.bos_token_id, theirs.eos_token_id, theirs.unk_token_id, theirs.pad_token_id)
    assert (real.bos_id, real.eos_id, real.unk_id, real.pad_id) == roles


def test_smollm2_cuts_off_every_digit(real):
    """What llama.cpp gives for these texts (llama_tokenize, 0.3.36)."""
    assert [real.backend.id_to_token(i) for i in real.encode("a  12 3")] == ["a", "ĠĠ", "1", "2", "Ġ", "3"]


def test_smollm2_properties(real):
    assert (real.kind, real.byte_level, real.vocab_size) == ("bpe", True, 49_152)
    assert real.special_ids == frozenset(range(17))
    assert real.stop_ids == {2}  # <|im_end|>
    assert real.encode("Hello there") == real.encode("Hello there", add_bos=False) == [19556, 665]
    assert all(real.decode(real.encode(text)) == text for text in HARD_TEXTS)


def test_smollm2_saved_as_a_folder_is_the_same(real, tmp_path):
    real.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == real.fingerprint
    assert (again.roles, again.chat_template, again.stop_ids) == (real.roles, real.chat_template, real.stop_ids)


def test_byte_level_from_metadata(bpe, metadata):
    tokenizer = Tokenizer(*from_metadata(metadata))
    for text in [*HARD_TEXTS, *CORPUS]:
        assert tokenizer.encode(text) == bpe.encode(text)
    assert (tokenizer.eos_id, tokenizer.chat_template) == (0, CHATML)


# How each family cuts this text. Written down by hand from the patterns that the models were published with.
TEXT = "It's 12345 DON'T  x\n\n  (yes)!"
CUTS = {
    "gpt-2": ["It", "'s", " 12345", " DON", "'", "T", " ", " x", "\n\n ", " (", "yes", ")!"],
    "smollm": ["It", "'s", " ", "1", "2", "3", "4", "5", " DON", "'", "T", " ", " x", "\n\n ", " (", "yes", ")!"],
    "llama-bpe": ["It", "'s", " ", "123", "45", " DON", "'T", " ", " x", "\n\n", " ", " (", "yes", ")!"],
    "dbrx": ["It", "'s", " ", "123", "45", " DON", "'T", " ", " x", "\n\n", " ", " (", "yes", ")!"],
    "qwen2": ["It", "'s", " ", "1", "2", "3", "4", "5", " DON", "'T", " ", " x", "\n\n", " ", " (", "yes", ")!"],
    "seed-coder": ["It", "'s", " ", "1", "2", "3", "4", "5", " DON", "'T", " ", " x", "\n\n", " ", " (", "yes", ")!"],
    "gpt-4o": ["It's", " ", "123", "45", " DON'T", " ", " x", "\n\n", " ", " (", "yes", ")!"],
    "tekken": ["It", "'s", " ", "1", "2", "3", "4", "5", " DON", "'T", " ", " x", "\n\n", " ", " (", "yes", ")!"],
    "deepseek-llm": ["It", "'", "s", " ", "12345", " DON", "'", "T", " ", " x", "\n", "\n", " ", " (", "yes", ")!"],
    "deepseek-coder": [
        "It",
        "'",
        "s",
        " ",
        "1",
        "2",
        "3",
        "4",
        "5",
        " DON",
        "'",
        "T",
        " ",
        " x",
        "\n",
        "\n",
        " ",
        " (",
        "yes",
        ")!",
    ],
    "bloom": ["It's", " 12345", " DON'T", " ", " x", "\n\n  (", "yes", ")!"],
    "viking": ["It's", " ", "1", "2", "3", "4", "5", " DON'T", " ", " x", "\n\n  (", "yes", ")!"],
    "default": ["It", "'", "s", " ", "123", "45", " DON", "'", "T", " ", " x", "\n\n  ", "(", "yes", ")!"],
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_name_cuts_as_its_family(name):
    cut = RECIPES[name].build().pre_tokenize_str(TEXT)
    family = next(first for first, recipe in RECIPES.items() if recipe == RECIPES[name])
    assert [TEXT[start:end] for _, (start, end) in cut] == CUTS[family]


def isolated(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


DIGITS = {"type": "Digits", "individual_digits": True}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
# The pre_tokenizer of the tokenizer.json that these models were published with, letters with case by their category.
PUBLISHED = {
    "deepseek-llm": [
        isolated(r"[\r\n]"), isolated(r"\s?[\p{Lu}\p{Ll}\p{Lt}]+"), isolated(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
        isolated(r"\s+$"), isolated(r"[一-龥ࠀ-一가-퟿]+"), isolated(r"\p{N}+"), BYTES,
    ],
    "deepseek-coder": [
        isolated(r"[\r\n]"), isolated(r"\s?\p{L}+"), isolated(r"\s?\p{P}+"), isolated(r"[一-龥ࠀ-一가-퟿]+"),
        DIGITS, BYTES,
    ],
    "bloom": [isolated(r" ?[^(\s|[.,!?…。，、।۔،])]+"), BYTES],
    "viking": [isolated(r" ?[^(\s|[.,!?…。，、।۔،])]+"), DIGITS, BYTES],
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_ids_are_those_of_the_published_pre_tokenizer(name, metadata, bpe):
    document = json.loads(bpe.backend.source)
    library = Library.from_str(
        json.dumps(document | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": PUBLISHED[name]}})
    )
    library.encode_special_tokens = True
    tokenizer = Tokenizer(*from_metadata(metadata | {"tokenizer.ggml.pre": name}))
    for text in [*HARD_TEXTS, *CORPUS, TEXT, *random_texts(100)]:
        assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids, text
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", sorted(CUTS))
def test_a_cut_has_its_name_back(name, metadata):
    backend, *_ = from_metadata(metadata | {"tokenizer.ggml.pre": name, "tokenizer.ggml.add_bos_token": False})
    assert name_of(backend.part("pre_tokenizer"), backend.model.ignore_merges) == name
    library = Library.from_str(backend.source)
    library.pre_tokenizer = None
    assert name_of(None, False) is None


def test_llama3_family_ignores_merges_and_adds_bos(metadata):
    llama3 = metadata | {"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.bos_token_id": 5}
    tokenizer = Tokenizer(*from_metadata(llama3))
    assert tokenizer.backend.model.ignore_merges
    assert tokenizer.encode("a")[0] == 5
    assert Tokenizer(*from_metadata(llama3 | {"tokenizer.ggml.add_bos_token": False})).encode("a")[0] != 5


def test_token_types(metadata):
    tokens = [*metadata["tokenizer.ggml.tokens"], "<think>", "<|im_end|>", "[PAD9]", ""]
    types = [*metadata["tokenizer.ggml.token_type"], 4, 3, 5, 5]
    changed = metadata | {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.eot_token_id": 7,
    }
    tokenizer = Tokenizer(*from_metadata(changed))
    size = len(metadata["tokenizer.ggml.tokens"])
    assert tokenizer.encode("<think>") == [size], "user-defined tokens are part of any text"
    assert size + 1 not in tokenizer.encode("<|im_end|>")
    assert tokenizer.stop_ids == {0, 7, size + 1}
    assert tokenizer.vocab_size == size + 4
    assert tokenizer.backend.id_to_token(size + 3) == f"[EMPTY_{size + 3}]"


@pytest.mark.parametrize("kind", [1, 3, 4, 5, None])
def test_byte_tokens_are_known_by_their_text(sentencepiece_metadata, sentencepiece_model, kind):
    """llama.cpp looks for <0xC3> by its text, whatever its type says, or where there are no types at all."""
    key = "tokenizer.ggml.token_type"
    types = [kind if old == 6 else old for old in sentencepiece_metadata[key]]
    tokenizer = Tokenizer(*from_metadata(sentencepiece_metadata | {key: None if kind is None else types}))
    for text in ("é", "日本", "🙂 a", "the dog", "<0x41>", "\x00"):
        assert tokenizer.encode(text, add_bos=False) == sentencepiece_model.encode(text), text
        assert kind is None or tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", [1, 4, 5])
def test_tokens_that_look_like_control_tokens_are(metadata, kind):
    """llama.cpp overrides the type of the ends of a turn, as some converters made words of them."""
    tokens = [*metadata["tokenizer.ggml.tokens"], "<|im_end|>", "<think>"]
    types = [*metadata["tokenizer.ggml.token_type"], kind, kind]
    tokenizer = Tokenizer(
        *from_metadata(metadata | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types})
    )
    end = len(tokens) - 2
    assert end in tokenizer.special_ids and end in tokenizer.stop_ids and end + 1 not in tokenizer.special_ids
    assert tokenizer.encode("<|im_end|>", parse_special=True) == [end]
    assert end not in tokenizer.encode("<|im_end|>")


def test_a_word_that_merges_make_is_no_control_token(metadata):
    """A vocabulary of HTML may have "</s>" as a word."""
    tokens = [*metadata["tokenizer.ggml.tokens"], "</", "</s", "</s>"]
    merges = [*metadata["tokenizer.ggml.merges"], "< /", "</ s", "</s >"]
    types = [*metadata["tokenizer.ggml.token_type"], 1, 1, 1]
    changed = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges, "tokenizer.ggml.token_type": types}
    tokenizer = Tokenizer(*from_metadata(metadata | changed | {"tokenizer.ggml.pre": "viking"}))
    assert tokenizer.encode("</s>") == [len(tokens) - 1]
    assert len(tokens) - 1 not in tokenizer.special_ids


def test_chat_templates_by_name(metadata, bpe):
    """gguf-py writes further templates under names of their own."""
    named = {"tokenizer.chat_templates": ["tool_use", "rag"], "tokenizer.chat_template.tool_use": "t {{ tools }}"}
    tokenizer = Tokenizer(*from_metadata(metadata | named))
    assert tokenizer.chat_templates == {"default": CHATML, "tool_use": "t {{ tools }}"}
    written = tokenizer.to_gguf()
    assert written["tokenizer.chat_templates"] == ["tool_use"]
    assert Tokenizer(*from_metadata(written)).chat_templates == tokenizer.chat_templates
    assert "tokenizer.chat_templates" not in bpe.to_gguf()


DAMAGE = {
    "no model": ({"tokenizer.ggml.model": None}, "ggml.model is None"),
    "unknown model": ({"tokenizer.ggml.model": "bert"}, "'bert'"),
    "unknown pre-tokenizer": ({"tokenizer.ggml.pre": "klingon"}, "'klingon'"),
    "pre-tokenizer of another type": ({"tokenizer.ggml.pre": 3}, "ggml.pre is 3"),
    "no tokens": ({"tokenizer.ggml.tokens": None}, "ggml.tokens is None"),
    "empty tokens": ({"tokenizer.ggml.tokens": []}, "0 tokens"),
    "tokens that are numbers": ({"tokenizer.ggml.tokens": [1, 2]}, "list of strings"),
    "a token twice": ({"tokenizer.ggml.tokens": ["a", "b", "a"]}, "'a' occurs twice"),
    "no merges": ({"tokenizer.ggml.merges": None}, "ggml.merges is None"),
    "half a merge": ({"tokenizer.ggml.merges": ["ab"]}, "'ab' is not a pair"),
    "a merge of unknown tokens": ({"tokenizer.ggml.merges": ["zzz yyy"]}, "vocabulary and merges"),
    "too few types": ({"tokenizer.ggml.token_type": [1, 2]}, "2 entries"),
    "types that are text": ({"tokenizer.ggml.token_type": "1"}, "list of numbers"),
    "types that are lists": ({"tokenizer.ggml.token_type": [[1]]}, "list of numbers"),
    "eos a float": ({"tokenizer.ggml.eos_token_id": 1.0}, "eos_token_id is 1.0"),
    "eos a truth": ({"tokenizer.ggml.eos_token_id": True}, "eos_token_id is True"),
    "add_bos a text": ({"tokenizer.ggml.add_bos_token": "yes"}, "add_bos_token is 'yes'"),
    "template a number": ({"tokenizer.chat_template": 3}, "chat_template is 3"),
}


@pytest.mark.parametrize("name", sorted(DAMAGE))
def test_damage_is_refused_by_name(metadata, name):
    change, cause = DAMAGE[name]
    with pytest.raises(FormatError) as caught:
        from_metadata(metadata | change, "file.gguf")
    assert cause in str(caught.value) and "file.gguf" in str(caught.value)


def test_damaged_sentencepiece_is_refused(sentencepiece_metadata):
    with pytest.raises(FormatError, match="entries"):
        from_metadata(sentencepiece_metadata | {"tokenizer.ggml.scores": [0.5]})


# -- special ids without a token -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["bos", "eos", "unknown", "padding", "eot", "eom"])
@pytest.mark.parametrize("beyond", [0, 3, 2**31, -5])
def test_a_bad_special_id_counts_as_not_given(sentencepiece_metadata, key, beyond):
    """As in llama.cpp, which warns and takes its defaults: 1, 2 and 0 for SentencePiece."""
    bad = beyond if beyond < 0 else len(sentencepiece_metadata["tokenizer.ggml.tokens"]) + beyond
    plain = {k: v for k, v in sentencepiece_metadata.items() if k != f"tokenizer.ggml.{key}_token_id"}
    with pytest.warns(UserWarning, match=f"{key}_token_id = {bad} is ignored"):
        found = Tokenizer(*from_metadata({**plain, f"tokenizer.ggml.{key}_token_id": bad}))
    usual = Tokenizer(*from_metadata(plain))
    assert found.roles == usual.roles
    assert (found.bos_id, found.eos_id, found.unk_id) == (1, 2, 0)
    assert found.encode("The quick ☂ fox") == usual.encode("The quick ☂ fox")


def test_a_bad_special_id_of_a_byte_level_tokenizer(metadata):
    with pytest.warns(UserWarning, match="eos_token_id"):
        found = Tokenizer(*from_metadata({**metadata, "tokenizer.ggml.eos_token_id": 10**6}))
    assert found.eos_id is None
