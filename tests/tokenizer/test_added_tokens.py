"""Added tokens and roles out of all of a folder's files: the same ids as transformers' AutoTokenizer reads."""

import json
import warnings

import pytest

from nano_llama.core.errors import FormatError
from nano_llama.tokenizer import Tokenizer

from .conftest import CHATML, CORPUS

ROLES = ("bos", "eos", "pad", "unk")
START, END, ORDINARY = "<|im_start|>", "<|im_end|>", "<tool>"


def token(content, special=True, **flags):
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": not special}
    return {"content": content, "special": special, **plain, **flags}


FIRST = 420  # the first id behind the vocabulary that the fixture `folder` trains


def by_id(*tokens, first=FIRST):
    return {str(first + number): entry for number, entry in enumerate(tokens)}


# Name -> (added_tokens of tokenizer.json, the files beside it)
FOLDERS = {
    "decoder only": ([], {"tokenizer_config.json": {"added_tokens_decoder": by_id(token(START), token(END))}}),
    "decoder, in no order": (
        [],
        {"tokenizer_config.json": {"added_tokens_decoder": dict(reversed(by_id(token(START), token(END)).items()))}},
    ),
    "decoder and roles": (
        [],
        {
            "tokenizer_config.json": {
                "added_tokens_decoder": by_id(token(START), token(END), token(ORDINARY, special=False)),
                "eos_token": END,
                "pad_token": {"__type": "AddedToken", **token(ORDINARY)},
            }
        },
    ),
    "decoder goes before the other files": (
        [],
        {
            "tokenizer_config.json": {"added_tokens_decoder": by_id(token(START), token(END)), "eos_token": END},
            "added_tokens.json": {START: FIRST + 1, END: FIRST},
            "special_tokens_map.json": {"eos_token": START},
        },
    ),
    "decoder changes flags": (
        [token(START, special=False), token(END)],
        {"tokenizer_config.json": {"added_tokens_decoder": by_id(token(START, lstrip=True), token(END, rstrip=True))}},
    ),
    "decoder lists what tokenizer.json has": (
        [token(START), token(END)],
        {"tokenizer_config.json": {"added_tokens_decoder": by_id(token(START), token(END)), "bos_token": START}},
    ),
    "added_tokens.json only": ([], {"added_tokens.json": {START: FIRST, END: FIRST + 1}}),
    "added_tokens.json and roles": (
        [],
        {"added_tokens.json": {END: FIRST + 1, START: FIRST}, "tokenizer_config.json": {"eos_token": END}},
    ),
    "added_tokens.json behind tokenizer.json": (
        [token(START)],
        {"added_tokens.json": {START: FIRST, END: FIRST + 1, ORDINARY: FIRST + 2}},
    ),
    "added_tokens.json of before a change": ([token(START), token(END)], {"added_tokens.json": {ORDINARY: FIRST}}),
    "the map goes before the config": (
        [token(START), token(END)],
        {"tokenizer_config.json": {"eos_token": START}, "special_tokens_map.json": {"eos_token": END}},
    ),
    "the map with flags": (
        [],
        {
            "special_tokens_map.json": {
                "eos_token": token(END, lstrip=True),
                "additional_special_tokens": [START, ORDINARY],
            }
        },
    ),
    "the map only, null": ([token(END)], {"special_tokens_map.json": {"eos_token": END, "pad_token": None}}),
    "roles that no file lists": ([], {"tokenizer_config.json": {"eos_token": END, "pad_token": "<pad>"}}),
    "a role that is a word of the vocabulary": ([], {"tokenizer_config.json": {"eos_token": "the"}}),
    "a role that is no special token": ([token(END, special=False)], {"tokenizer_config.json": {"eos_token": END}}),
    "further special tokens": (
        [],
        {"tokenizer_config.json": {"additional_special_tokens": [START, {"__type": "AddedToken", **token(END)}]}},
    ),
    "further special tokens, new name": ([], {"tokenizer_config.json": {"extra_special_tokens": [START, END]}}),
    "roles of a model's own": (
        [token(START)],
        {"tokenizer_config.json": {"image_token": "<image>", "extra_special_tokens": {"boi_token": "<boi>"}}},
    ),
    "classifiers' roles": ([], {"tokenizer_config.json": {"cls_token": "[CLS]", "sep_token": "[SEP]"}}),
}  # fmt: skip

TEXTS = [
    f"{START}user\nthe dog {END} {START}", f"a{ORDINARY}b {ORDINARY} the<pad>", f"x {START} y {END}\n z",
    "<image><boi>[CLS] the [SEP]",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    def make(added, files):
        Tokenizer.train_bpe(CORPUS, FIRST).save_pretrained(tmp_path)
        document = json.loads((tmp_path / "tokenizer.json").read_text())
        assert 1 + max(document["model"]["vocab"].values()) == FIRST
        document["added_tokens"] += [{"id": FIRST + number, **entry} for number, entry in enumerate(added)]
        (tmp_path / "tokenizer.json").write_text(json.dumps(document))
        for name, content in files.items():
            if name == "tokenizer_config.json":
                content = {"tokenizer_class": "PreTrainedTokenizerFast", **content}
            (tmp_path / name).write_text(json.dumps(content))
        return tmp_path

    return make


def read(place):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Tokenizer.from_pretrained(place)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_read_as_transformers_reads_it(name, folder):
    transformers = pytest.importorskip("transformers")
    place = folder(*FOLDERS[name])
    ours, theirs = read(place), transformers.AutoTokenizer.from_pretrained(place)
    for text in TEXTS:
        assert ours.encode(text, parse_special=True) == theirs.encode(text), text
        ids = theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), "the same tokens are special"
    assert ours.vocab_size == len(theirs)
    for role in ROLES:
        expected = getattr(theirs, f"{role}_token_id")
        found = getattr(ours, f"{role}_id")
        assert found == expected or (role == "eos" and expected is None and found == 0), role  # by its name
    for role, text in theirs.special_tokens_map.items():
        if role.removesuffix("_token") not in ROLES:
            assert dict(ours.roles.others)[role] == theirs.convert_tokens_to_ids(text)


@pytest.mark.parametrize("name", FOLDERS)
def test_what_was_read_is_kept_when_saved(name, folder, tmp_path):
    ours = read(folder(*FOLDERS[name]))
    ours.save_pretrained(tmp_path / "again")
    again = Tokenizer.from_pretrained(tmp_path / "again")
    assert again.fingerprint == ours.fingerprint
    assert (again.bos_id, again.eos_id, again.pad_id, again.roles.others) == (
        ours.bos_id, ours.eos_id, ours.pad_id, ours.roles.others,
    )  # fmt: skip


def test_templates_see_the_roles_of_a_model_of_its_own(folder):
    transformers = pytest.importorskip("transformers")
    config = {"image_token": "<image>", "cls_token": START, "chat_template": "{{ image_token }}{{ cls_token }}"}
    place = folder([token(START)], {"tokenizer_config.json": config})
    chat = [{"role": "user", "content": ""}]
    expected = transformers.AutoTokenizer.from_pretrained(place).apply_chat_template(chat, tokenize=False)
    assert read(place).apply_chat_template(chat) == expected == f"<image>{START}"


def test_saving_over_another_model_leaves_nothing_of_its_tokens(folder, bpe):
    place = folder(*FOLDERS["added_tokens.json and roles"])
    bpe.save_pretrained(place)
    assert Tokenizer.from_pretrained(place).vocab_size == bpe.vocab_size


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ({"added_tokens.json": {START: FIRST + 5}}, "leaves a gap"),
        ({"added_tokens.json": {START: 7}}, "which .* has in tokenizer.json"),
        ({"tokenizer_config.json": {"added_tokens_decoder": by_id(token(START), first=FIRST + 1)}}, "leaves a gap"),
        ({"tokenizer_config.json": {"added_tokens_decoder": [START]}}, "not an object"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"x": token(START)}}}, "the id 'x'"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"-1": token(START)}}}, "the id '-1'"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {str(FIRST): 3}}}, "is not a token"),
        ({"tokenizer_config.json": {"added_tokens_decoder": by_id(token(""))}}, "is not a token"),
        ({"tokenizer_config.json": {"added_tokens_decoder": by_id(token(START, lstrip="x"))}}, "flag"),
        ({"tokenizer_config.json": {"additional_special_tokens": [3]}}, "is not a token"),
        ({"added_tokens.json": {START: "x"}}, "the id 'x'"),
        ({"added_tokens.json": {"": FIRST}}, "without text"),
        ({"added_tokens.json": {str(n): FIRST + n for n in range(70_000)}}, "too many"),
        ({"special_tokens_map.json": {"eos_token": 3}}, "eos_token = 3"),
    ],
)
def test_companions_that_cannot_be_right_are_refused(folder, files, cause):
    with pytest.raises(FormatError, match=cause):
        Tokenizer.from_pretrained(folder([], files))


def test_tokenizer_json_counts_where_two_files_give_one_token_two_ids(folder):
    place = folder([token(START), token(END)], {"added_tokens.json": {END: FIRST + 9}})
    with pytest.warns(UserWarning, match="which counts"):
        assert Tokenizer.from_pretrained(place).encode(END, parse_special=True) == [FIRST + 1]


def test_a_duplicate_says_nothing_new(folder):
    """tokenizer.json may list an added token twice; the tokenizers library and transformers read it."""
    place = folder([token(START), token(END)], {"tokenizer_config.json": {"chat_template": CHATML}})
    document = json.loads((place / "tokenizer.json").read_text())
    document["added_tokens"].append(document["added_tokens"][-1])
    (place / "tokenizer.json").write_text(json.dumps(document))
    assert Tokenizer.from_pretrained(place).encode(END, parse_special=True) == [FIRST + 1]
