"""Folders as the hub has them: what their files say together, held to transformers where both read it."""

import json
import shutil

import pytest
from tokenizers import Tokenizer as Library

from nano_llama.core.errors import FormatError, UserError
from nano_llama.tokenizer import Tokenizer

from .conftest import CHATML, CORPUS, HARD_TEXTS


@pytest.fixture
def folder(llama3_folder, tmp_path):
    return shutil.copytree(llama3_folder, tmp_path / "model")


def change(folder, name="tokenizer_config.json", **values):
    path = folder / name
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | values))


def test_llama3_folder_as_transformers_reads_it(llama3_folder):
    transformers = pytest.importorskip("transformers")
    ours, theirs = Tokenizer.from_pretrained(llama3_folder), transformers.AutoTokenizer.from_pretrained(llama3_folder)
    for text in [*CORPUS, *HARD_TEXTS[:4]]:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.encode(text, add_bos=False) == theirs.encode(text, add_special_tokens=False)
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    assert ours.vocab_size == len(theirs)
    assert ours.special_ids == set(theirs.all_special_ids) | set(theirs.added_tokens_decoder)


def test_several_ends_of_an_answer(llama3_folder):
    tokenizer = Tokenizer.from_pretrained(llama3_folder)
    ends = {tokenizer.backend.token_to_id(name) for name in ("<|end_of_text|>", "<|eot_id|>")}
    assert tokenizer.stop_ids == ends
    assert tokenizer.eos_id == tokenizer.backend.token_to_id("<|eot_id|>")


@pytest.mark.parametrize("config", [{"add_bos_token": False}, {"add_eos_token": True}])
def test_tokenizer_json_decides_about_bos_and_eos(folder, config):
    transformers = pytest.importorskip("transformers")
    change(folder, **config)
    ours, theirs = Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert ours.encode("a b") == theirs.encode("a b") == [ours.bos_id, *ours.encode("a b", add_bos=False)]


def test_saving_keeps_everything(llama3_folder, tmp_path):
    tokenizer = Tokenizer.from_pretrained(llama3_folder)
    tokenizer.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.chat_template == tokenizer.chat_template
    assert (again.bos_id, again.eos_id, again.roles.prefix) == (
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer.roles.prefix,
    )


TOOLS = [{"type": "function", "function": {"name": "f"}}]
NAMED = [{"name": "tool_use", "template": "tools {{ tools|length }}"}, {"name": "default", "template": "plain"}]
# Name -> (chat_template of tokenizer_config.json, the jinja files)
TEMPLATES = {
    "one": ("plain", {}),
    "a list": (NAMED, {}),
    "a list without a default": (NAMED[:1], {}),
    "a file": (None, {"chat_template.jinja": "file"}),
    "a file goes before the config": ("plain", {"chat_template.jinja": "file"}),
    "a file goes before a list": (NAMED, {"chat_template.jinja": "file {{ tools }}"}),
    "additional ones": (
        None,
        {"chat_template.jinja": "file", "additional_chat_templates/tool_use.jinja": "{{ tools[0].function.name }}",
         "additional_chat_templates/rag.jinja": "{{ documents }}"},
    ),
    "additional ones beside a list": (
        NAMED, {"chat_template.jinja": "x", "additional_chat_templates/tool_use.jinja": "{{ tools }}"},
    ),
}  # fmt: skip


def with_templates(folder, template, files):
    change(folder, chat_template=template)
    (folder / "additional_chat_templates").mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def outcome(work):
    try:
        return work()
    except (UserError, ValueError) as error:
        return type(error)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_in_every_form_are_those_of_transformers(folder, tmp_path, name):
    transformers = pytest.importorskip("transformers")
    with_templates(folder, *TEMPLATES[name])
    theirs, chat = transformers.AutoTokenizer.from_pretrained(folder), [{"role": "user", "content": "Hi"}]
    ours = Tokenizer.from_pretrained(folder)
    ours.save_pretrained(tmp_path / "again")
    again = Tokenizer.from_pretrained(tmp_path / "again")
    assert again.chat_templates == ours.chat_templates
    several = len(ours.chat_templates) > 1
    for tools, asked in ((None, None), (TOOLS, None), *([(None, "default"), (TOOLS, "tool_use")] if several else [])):
        given = {"tools": tools, "chat_template": asked}
        expected = outcome(lambda: theirs.apply_chat_template(chat, tokenize=False, **given))  # noqa: B023
        found = outcome(lambda: ours.apply_chat_template(chat, **given))  # noqa: B023
        swallowed = tools and expected in ("plain", "file")  # by transformers: the template does not read tools
        assert found == (UserError if swallowed or expected is ValueError else expected), given


def test_additional_templates_leave_the_default_of_the_config(folder):
    """transformers then has no default at all."""
    with_templates(folder, "plain", {"additional_chat_templates/tool_use.jinja": "{{ tools }}"})
    assert Tokenizer.from_pretrained(folder).chat_templates == {"default": "plain", "tool_use": "{{ tools }}"}


def test_a_template_may_have_a_file_or_a_list(folder):
    change(folder, chat_template=[{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}])
    assert Tokenizer.from_pretrained(folder).chat_template == "y"
    (folder / "chat_template.jinja").write_text(CHATML)
    assert Tokenizer.from_pretrained(folder).chat_template == CHATML
    change(folder, chat_template=["junk", {"name": "other"}])
    (folder / "chat_template.jinja").unlink()
    assert Tokenizer.from_pretrained(folder).chat_template is None


def test_saving_over_another_model_leaves_nothing_of_its_template(folder, bpe):
    (folder / "chat_template.jinja").write_text(CHATML)
    bpe.save_pretrained(folder)
    assert Tokenizer.from_pretrained(folder).chat_template is None


def test_a_single_file(bpe, llama3_folder, tmp_path):
    bpe.save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(str(tmp_path / "tokenizer.json")).roles == bpe.roles
    alone = shutil.copy(llama3_folder / "tokenizer.json", tmp_path / "alone.json")
    tokenizer = Tokenizer.from_pretrained(alone)  # nothing beside it is read
    assert tokenizer.chat_template is None
    assert tokenizer.eos_id == tokenizer.backend.token_to_id("<|end_of_text|>"), "by its name"
    assert tokenizer.bos_id == tokenizer.backend.token_to_id("<|begin_of_text|>"), "by the post-processor"


def test_a_role_makes_a_token_special(folder):
    """A file may name an EOS that its tokenizer.json has as an ordinary word; transformers makes it special."""
    document = json.loads((folder / "tokenizer.json").read_text())
    document["model"]["vocab"] |= {token["content"]: token["id"] for token in document["added_tokens"]}
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] != "<|eot_id|>"]
    (folder / "tokenizer.json").write_text(json.dumps(document))
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokenizer.eos_id in tokenizer.special_ids
    assert tokenizer.encode("<|eot_id|>", add_bos=False, parse_special=True) == [tokenizer.eos_id]
    assert tokenizer.eos_id not in tokenizer.encode("<|eot_id|>")


@pytest.mark.parametrize("number", [10**6, 2**32, 2**70])
def test_an_end_that_the_vocabulary_lacks_is_none(folder, number):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": number}))
    tokenizer = Tokenizer.from_pretrained(folder)
    assert number not in tokenizer.stop_ids and tokenizer.stop_ids
    change(folder, eos_token=None)
    assert Tokenizer.from_pretrained(folder).eos_id != number


def test_a_role_that_the_vocabulary_lacks_gets_the_next_id(folder):
    transformers = pytest.importorskip("transformers")
    change(folder, pad_token="<|nowhere|>", unk_token=None)
    with pytest.warns(UserWarning, match="nowhere"):
        tokenizer = Tokenizer.from_pretrained(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.pad_id, tokenizer.unk_id) == (theirs.pad_token_id, theirs.unk_token_id) == (405, None)


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("tokenizer_config.json", "[]", "not an object"),
        ("tokenizer_config.json", "{", "not a valid"),
        ("tokenizer_config.json", '{"bos_token": 3}', "bos_token = 3"),
        ("tokenizer_config.json", '{"chat_template": 3}', "chat_template is int"),
        ("tokenizer_config.json", '{"a":' * 100_000, "not a valid"),
        ("generation_config.json", "nonsense", "not a valid"),
        ("config.json", '"text"', "not an object"),
    ],
)
def test_damaged_neighbours_are_refused_by_name(folder, name, content, cause):
    (folder / name).write_text(content)
    with pytest.raises(FormatError, match=cause) as caught:
        Tokenizer.from_pretrained(folder)
    assert name in str(caught.value)


def test_a_template_file_that_is_no_text(folder):
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(FormatError, match=r"chat_template\.jinja"):
        Tokenizer.from_pretrained(folder)


def test_a_name_that_is_no_path_is_looked_up_on_the_hub(llama3_folder, monkeypatch):
    from nano_llama import formats

    asked = []
    monkeypatch.setattr(formats, "resolve_model", lambda name: asked.append(name) or llama3_folder)
    assert Tokenizer.from_pretrained("org/name").eos_id == Tokenizer.from_pretrained(llama3_folder).eos_id
    assert asked == ["org/name"]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(UserError, match="SentencePiece") as caught:
        Tokenizer.from_pretrained(tmp_path)
    assert "AutoTokenizer" in caught.value.hint


def test_legacy_files_without_types_are_read(bpe, tmp_path):
    """GPT-2's own file names no model type and writes merges as one string."""
    document = json.loads(bpe.backend.source)
    del document["model"]["type"]
    document["model"]["merges"] = [" ".join(merge) for merge in document["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    assert Library.from_file(str(tmp_path / "tokenizer.json")).encode("the dog").ids == bpe.encode("the dog")
    assert Tokenizer.from_pretrained(tmp_path).encode("the dog") == bpe.encode("the dog")
