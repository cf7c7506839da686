"""Junk in a tokenizer.json: each ends in our error that names the file and the cause, in no crash, hang or flood."""

import copy
import json
import random
import resource
import subprocess
import sys
import time
from typing import Any

import pytest

from nano_llama.core.errors import FormatError, NanoLlamaError
from nano_llama.tokenizer import Tokenizer


def added(number: Any, content: Any, **more: Any) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content, **flags, **more}


GOOD: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [added(3, "</s>")],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": None,
    "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "</s>": 3}, "merges": [["a", "b"]]},
}


def bpe(**changes: Any) -> dict[str, Any]:
    return {"model": GOOD["model"] | changes}


def split(regex: str) -> dict[str, Any]:
    return {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}}


def nested(depth: int) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "NFC"}
    for _ in range(depth):
        part = {"type": "Sequence", "normalizers": [part]}
    return part


def replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def sequence(step: dict[str, Any], count: int) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": [step] * count}


def special(ids: list[int]) -> dict[str, Any]:
    return {"id": "</s>", "ids": ids, "tokens": ["</s>"] * len(ids)}


def template(**changes: Any) -> dict[str, Any]:
    single = [{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    known = {"</s>": special([3])}
    whole = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": known}
    return {"post_processor": whole | changes}


# What a file says in place of the good one, and a part of the complaint.
CHANGED = {
    "no model": ({"model": None}, "no model"),
    "model a list": ({"model": []}, "no model"),
    "model of an unknown type": ({"model": {"type": "Magic", "vocab": {}}}, "'Magic'"),
    "model type a list": ({"model": {"type": ["BPE"]}}, "['BPE']"),
    "no vocabulary": (bpe(vocab=None), "not an object"),
    "vocabulary a list": (bpe(vocab=["a", "b"]), "not an object"),
    "vocabulary empty": (bpe(vocab={}), "empty"),
    "id a text": (bpe(vocab={"a": "0"}), "the id '0'"),
    "id a fraction": (bpe(vocab={"a": 0.5}), "the id 0.5"),
    "id a truth": (bpe(vocab={"a": True}), "the id True"),
    "id negative": (bpe(vocab={"a": -1}), "the id -1"),
    "id of 32 bits": (bpe(vocab={"a": 2**32 - 1}), "4294967295"),
    "id of a thousand digits": (bpe(vocab={"a": 10**1000}), "the id"),
    "id null": (bpe(vocab={"a": None}), "the id None"),
    "two tokens of one id": (bpe(vocab={"a": 0, "b": 0}, merges=[]), "share the id 0"),
    "merges a text": (bpe(merges="a b"), "not a list"),
    "merges missing": (bpe(merges=None), "not a list"),
    "merge of one": (bpe(merges=["ab"]), "not a pair"),
    "merge of three": (bpe(merges=[["a", "b", "a"]]), "not a pair"),
    "merge of numbers": (bpe(merges=[[0, 1]]), "not a pair"),
    "merge of a stranger": (bpe(merges=[["a", "z"]]), "'z'"),
    "merge into a stranger": (bpe(merges=[["b", "a"]]), "'ba'"),
    "prefix that cuts characters": (bpe(vocab={"a": 0, "é": 1}, continuing_subword_prefix="x"), "continuing_subword"),
    "unknown token unknown": (bpe(unk_token="<unk>"), "'<unk>'"),
    "dropout above one": (bpe(dropout=7.0), "ropout"),
    "added tokens an object": ({"added_tokens": {"a": 1}}, "not a list"),
    "added token a text": ({"added_tokens": ["</s>"]}, "not an object"),
    "added token without text": ({"added_tokens": [added(4, "")]}, "no text"),
    "added token of a number": ({"added_tokens": [added(4, 4)]}, "no text"),
    "added id out of range": ({"added_tokens": [added(2**31, "x")]}, "2147483648"),
    "added id negative": ({"added_tokens": [added(-1, "x")]}, "-1"),
    "added ids twice": ({"added_tokens": [added(4, "x"), added(4, "y")]}, "share the id 4"),
    "added text twice": ({"added_tokens": [added(4, "x"), added(5, "x")]}, "occurs twice"),
    "added id of another": ({"added_tokens": [added(0, "x")]}, "share the id 0"),
    "added with two ids": ({"added_tokens": [added(9, "ab")]}, "ids 2 and 9"),
    "added after a gap": ({"added_tokens": [added(4, "x"), added(90, "y")]}, "gap"),
    "added flags missing": ({"added_tokens": [{"id": 4, "content": "x"}]}, ""),
    "too many added": ({"added_tokens": [added(number, str(number)) for number in range(10, 70_000)]}, "adds 69,990"),
    "added too long": ({"added_tokens": [added(4, "x" * 2_000_000)]}, "2,000,000 characters"),
    "normalizer a text": ({"normalizer": "NFC"}, "normalizer"),
    "normalizer unknown": ({"normalizer": {"type": "Magic"}}, ""),
    "normalizer nested": ({"normalizer": nested(40)}, "nested deeper"),
    "normalizer of many steps": ({"normalizer": sequence({"type": "NFC"}, 1000)}, "1,000 steps"),
    "billion laughs": ({"normalizer": sequence(replace("a", "a" * 10), 12)}, "lengthen"),
    "laughs of a regex": ({"normalizer": replace("", "x" * 9999) | {"pattern": {"Regex": ""}}}, "lengthen"),
    "laughs when decoding": ({"decoder": {"type": "Sequence", "decoders": [replace("a", "a" * 99)] * 5}}, "lengthen"),
    "a long prefix": ({"normalizer": {"type": "Prepend", "prepend": "x" * 10**6}}, "lengthen"),
    "charsmap of junk": ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}}, ""),
    "regex that does not close": (split("(a"), ""),
    "metaspace of two letters": (
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "__", "prepend_scheme": "always", "split": True}},
        "",
    ),
    "decoder a number": ({"decoder": 3}, "decoder"),
    "decoder without a type": ({"decoder": {"decoders": []}}, "decoder"),
    "template of strangers": (template(special_tokens={}), "does not define"),
    "template ids out of range": (template(special_tokens={"</s>": special([2**40])}), "valid ids"),
    "template ids many": (template(special_tokens={"</s>": special([3] * 99)}), "valid ids"),
    "template of numbers": (template(single=[3]), "no template"),
    "template piece of a number": (template(single=[{"SpecialToken": 3}]), "does not define"),
    "template piece of a list": (template(single=[{"SpecialToken": {"id": []}}]), "does not define"),
    "template special a list": (template(special_tokens=[]), "no special_tokens"),
    "unigram empty": ({"model": {"type": "Unigram", "vocab": [], "unk_id": 0}}, "Unigram"),
    "unigram of texts": ({"model": {"type": "Unigram", "vocab": ["a"], "unk_id": 0}}, "'a'"),
    "unigram score a text": ({"model": {"type": "Unigram", "vocab": [["a", "x"]], "unk_id": 0}}, "[token, score]"),
    "unigram unknown out of range": ({"model": {"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": 9}}, ""),
    "padding of junk": ({"padding": {"strategy": "Endless"}}, ""),
    "truncation of junk": ({"truncation": [1]}, ""),
    "version of the future": ({"version": "99.0"}, ""),
}  # fmt: skip

# Files that are not even such an object.
RAW = {
    "empty": (b"", "not a valid"),
    "not JSON": (b"GIF89a", "not a valid"),
    "cut short": (json.dumps(GOOD).encode()[:-40], "not a valid"),
    "not UTF-8": (b'{"model": "\xff\xfe"}', "not a valid"),
    "UTF-16": (json.dumps(GOOD).encode("utf-16"), "not a valid"),
    "half a surrogate pair": (json.dumps(GOOD).replace('"ab"', '"\\ud800"').encode(), ""),
    "a list": (b"[]", "top level"),
    "a number": (b"3", "top level"),
    "null": (b"null", "top level"),
    "deep objects": (b'{"model":' * 200_000, "not a valid"),
    "deep lists": (b"[" * 500_000, "not a valid"),
    "a name twice": (b'{"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": []}}', "occurs twice"),
    "a number too long": (b'{"model": ' + b"9" * 100_000 + b"}", ""),
    "not a number": (
        json.dumps(GOOD | {"model": {"type": "Unigram", "vocab": [["a", float("nan")]]}}).encode(),
        "score",
    ),
    "infinite": (json.dumps(GOOD | {"model": {"type": "Unigram", "vocab": [["a", float("-inf")]]}}).encode(), "score"),
    "a million brackets": (b"[" + b"[]," * 2_000_000 + b"[]]", "too many for a tokenizer"),
    "ten million numbers": (b"[" + b"1," * 10_000_000 + b"1]", "too many for a tokenizer"),
    "larger than is read": (b" " * (64 * 2**20 + 1), "at most"),
}


def expect_refusal(path, cause: str) -> None:
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(NanoLlamaError) as caught:
        tokenizer = Tokenizer.from_pretrained(path)
        tokenizer.decode(tokenizer.encode("abba"))
    assert isinstance(caught.value, FormatError)
    assert cause in str(caught.value)
    assert str(path) in str(caught.value)
    assert time.monotonic() - start < 20  # the promise is an end; the margin is for a busy machine
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 2 * path.stat().st_size + 200 * 2**20


def test_the_good_one_is_good(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(GOOD))
    assert Tokenizer.from_pretrained(path).encode("abab") == [2, 2]


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_changed_file_is_refused(name, tmp_path):
    change, cause = CHANGED[name]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(GOOD | change))
    expect_refusal(path, cause)


@pytest.mark.parametrize("name", sorted(RAW))
def test_raw_file_is_refused(name, tmp_path):
    content, cause = RAW[name]
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    expect_refusal(path, cause)


@pytest.mark.parametrize(
    ("regex", "text"), [("(a+)+$", "a" * 40 + "b"), ("(a|aa)+$", "a" * 3000 + "b"), ("^(a+)+$|(x+x+)+y", "x" * 3000)]
)
def test_a_regex_that_never_ends_is_ended(regex, text, tmp_path):
    """The library's regex engine counts its steps and panics: a BaseException, which here is a FormatError."""
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(GOOD | split(regex)))
    tokenizer = Tokenizer.from_pretrained(path)
    with pytest.raises(FormatError, match="tokenizers library"):
        tokenizer.encode(text)
    with pytest.raises(FormatError, match="tokenizers library"):
        tokenizer.encode_batch(["a", text])


def test_a_decoder_that_panics_is_our_error(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(GOOD | {"decoder": {"type": "Strip", "content": "a", "start": 2, "stop": 2}}))
    tokenizer = Tokenizer.from_pretrained(path)
    with pytest.raises(FormatError, match="Decoding"):
        tokenizer.decode([0, 0, 2])


FUZZ = """
import copy, json, random, sys
from pathlib import Path
from nano_llama.core.errors import NanoLlamaError
from nano_llama.tokenizer import Tokenizer

good, seed, path = json.loads(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
draw = random.Random(seed)
JUNK = [None, True, -1, 0, 3, 2**31, 2**63, 1e300, "", "a", "\u00e9", "x" * 200, [], {}, [[]], [None], {"a": 0}]
STEPS = "NFC Sequence Replace Prepend Strip ByteLevel Fuse Metaspace BPE Unigram WordPiece WordLevel Digits".split()
STEPS += "TemplateProcessing Split ByteFallback CTC BPEDecoder Punctuation Magic".split()

def places(value):
    if isinstance(value, dict):
        for key in value:
            yield value, key
            yield from places(value[key])
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield value, number
            yield from places(item)

for _ in range(400):
    document = copy.deepcopy(good)
    for _ in range(draw.randint(1, 3)):
        holder, key = draw.choice(list(places(document)))
        if isinstance(holder, dict) and draw.random() < 0.2:
            del holder[key]
        elif key == "type":
            holder[key] = draw.choice(STEPS)
        else:
            holder[key] = copy.deepcopy(draw.choice(JUNK))
    path.write_text(json.dumps(document))
    try:
        tokenizer = Tokenizer.from_pretrained(path)
        tokenizer.decode(tokenizer.encode("ab \u00e9 ba</s>", parse_special=True), skip_special=False)
    except NanoLlamaError:
        pass
    except BaseException:
        print(json.dumps(document), file=sys.stderr)
        raise
"""


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_changes_never_get_past_our_errors(seed, tmp_path):
    """In a process of its own: a crash inside the library would end it."""
    rich = copy.deepcopy(GOOD) | template()
    rich["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "_"}, replace(" ", "_")]}
    rich["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split("a+")["pre_tokenizer"], GOOD["pre_tokenizer"]]}
    rich["decoder"] = {"type": "Sequence", "decoders": [replace("_", " "), {"type": "Fuse"}]}
    good = random.Random(seed).choice([GOOD, rich, rich])
    command = [sys.executable, "-c", FUZZ, json.dumps(good), str(seed), str(tmp_path / "tokenizer.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
