"""Every form of example is read as the same conversation, and whatever is wrong is named with file and line."""

import gzip

import pytest

from nano_llama.core.errors import FormatError, UserError
from nano_llama.data.sft.examples import contents, open_examples
from nano_llama.data.sft.forms import Completion, Conversation, Text

MESSAGES = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
SYSTEM = {"role": "system", "content": "S"}
TURNS = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
FORMS = [
    ({"messages": MESSAGES}, MESSAGES),
    ({"messages": MESSAGES, "prompt": "Q", "tools": None}, MESSAGES),
    ({"conversations": TURNS}, MESSAGES),
    ({"conversations": TURNS, "system": "S"}, [SYSTEM, *MESSAGES]),
    ({"conversations": MESSAGES}, MESSAGES),
    ({"instruction": "Q", "output": "A"}, MESSAGES),
    ({"instruction": "Q", "input": "", "output": "A", "system": "", "history": []}, MESSAGES),
    (
        {"instruction": "Q", "input": "I", "output": "A", "system": "S"},
        [SYSTEM, {"role": "user", "content": "Q\n\nI"}, MESSAGES[1]],
    ),
]


@pytest.mark.parametrize(("record", "messages"), FORMS)
def test_forms_of_conversations(jsonl, record, messages):
    path = jsonl("a.jsonl", [record, record])
    examples = open_examples(path)
    assert examples.train == [Conversation(f"{path}, line 1", messages)]
    assert examples.val == [Conversation(f"{path}, line 2", messages)]


def test_texts_completions_and_tools(jsonl):
    tools = [{"name": "clock"}]
    records = [
        {"text": "T"},
        {"prompt": "", "completion": "C"},
        {"messages": MESSAGES, "tools": tools},
        {"conversations": MESSAGES, "tools": tools},
        {"text": "half \ud83d"},
    ]
    path = jsonl("a.jsonl", records)
    examples = open_examples(path)
    found = examples.train + examples.val
    assert found == [
        Text(f"{path}, line 1", "T"),
        Completion(f"{path}, line 2", "", "C"),
        Conversation(f"{path}, line 3", MESSAGES, tools),
        Conversation(f"{path}, line 4", MESSAGES, tools),
        Text(f"{path}, line 5", "half \ufffd"),
    ]


def test_plain_text_files(tmp_path):
    (tmp_path / "train.txt").write_text("One.\n<|endoftext|>\nTwo.")
    (tmp_path / "val.txt").write_text("Three.")
    examples = open_examples(tmp_path)
    assert [one.text for one in examples.train] == ["One.", "Two."] and [one.text for one in examples.val] == ["Three."]


def test_the_last_tenth_is_for_validation(jsonl):
    examples = open_examples(jsonl("a.jsonl", [{"text": str(i)} for i in range(25)]))
    assert [int(one.text) for one in examples.train] == list(range(23))
    assert [int(one.text) for one in examples.val] == [23, 24]


def test_a_folder_has_its_splits_by_name(jsonl, tmp_path):
    jsonl("set/train.jsonl", [{"text": "a"}, {"text": "b"}])
    jsonl("set/val.jsonl", [{"text": "c"}])
    jsonl("set/test.jsonl", ["not even read"])
    (tmp_path / "set/README.md").write_text("A card.")
    examples = open_examples(tmp_path / "set")
    assert [one.text for one in examples.train] == ["a", "b"] and [one.text for one in examples.val] == ["c"]
    assert examples.left_out == ["README.md", "test.jsonl"]


def test_a_folder_without_validation_and_a_packed_file(tmp_path):
    with gzip.open(tmp_path / "train.jsonl.gz", "wt") as file:
        file.write('{"text": "a"}\n\n{"text": "b"}\n')
    examples = open_examples(tmp_path)
    assert [one.text for one in examples.val] == ["b"]
    assert examples.val[0].where.endswith("line 3"), "blank lines count"


def test_fields_that_are_not_read_are_counted(jsonl):
    records = [{"text": "a", "id": 1, "source": "x"}, {"messages": MESSAGES, "id": 2, "prompt": "Q"}]
    assert open_examples(jsonl("a.jsonl", records)).unread == {"id": 2, "source": 1, "prompt": 1}


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("{", "not JSON"),
        ("[1]", "one object was expected, not \\[1\\]"),
        ({"question": "Q", "answer": "A"}, "no form of example has these fields: question, answer"),
        ({"prompt": "Q"}, "no form .* prompt"),
        ({"prompt": "Q", "completion": ""}, '"completion" is empty'),
        ({"prompt": ["Q"], "completion": "A"}, '"prompt" is \\["Q"\\]'),
        ({"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, "are lists"),
        ({"text": ""}, '"text" is empty'),
        ({"text": 3}, '"text" is 3'),
        ({"messages": "Q"}, '"messages" is "Q"'),
        ({"messages": MESSAGES, "tools": "[]"}, '"tools" is "\\[\\]"'),
        ({"conversations": [{"from": "human", "value": "Q"}, {"value": "A"}]}, 'turn 1 is "from" null'),
        ({"conversations": [{"from": "narrator", "value": "Q"}]}, 'turn 0 is "from" "narrator"'),
        ({"conversations": [{"from": ["human"], "value": "Q"}]}, r'turn 0 is "from" \["human"\]'),
        ({"prompt": None, "completion": "A"}, r"no form .* these fields: prompt \(null\), completion"),
        ({}, "no form .* these fields: none"),
        ('{"text": ' + "[" * 600 + "]" * 600 + "}", "not JSON"),
        ({"conversations": [{"from": "human"}]}, 'turn 0 is {"from": "human"}'),
        ({"instruction": "Q", "output": 1}, '"output" is 1'),
        ({"instruction": "Q", "output": "A", "history": [["a", "b"]]}, '"history"'),
    ],
)
def test_wrong_lines(jsonl, line, cause):
    path = jsonl("a.jsonl", [{"text": "good"}, line])
    with pytest.raises(FormatError, match=cause) as caught:
        open_examples(path)
    assert f"{path}, line 2" in caught.value.message and caught.value.hint


def test_a_json_array_is_told_how_to_become_lines(jsonl):
    for path in (jsonl("a.jsonl", ["[", "{}", "]"]), jsonl("b.jsonl", ['[{"text": "a"}]']), jsonl("c.json", ["[]"])):
        with pytest.raises(UserError) as caught:
            open_examples(path)
        assert "jq -c '.[]'" in caught.value.hint


def test_what_the_examples_hold_is_counted():
    conversations = [Conversation("a", [SYSTEM, *MESSAGES]), Conversation("b", MESSAGES)]
    assert contents([*conversations, Completion("c", "", "x"), Text("d", "x")]) == {
        "system messages": 1, "user messages": 2, "assistant messages": 2, "completions": 1, "texts": 1
    }  # fmt: skip


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(FormatError, match="line 2: not UTF-8"):
        open_examples(path)


def test_wrong_files(jsonl, tmp_path):
    for path, cause in (
        (tmp_path / "none.jsonl", "No data at"),
        (jsonl("empty.jsonl", []), "empty.jsonl: no examples in it .0 bytes."),
        (jsonl("blank.jsonl", ["", " "]), "no examples in it"),
        (jsonl("one.jsonl", [{"text": "a"}]), "a single example"),
        (jsonl("table.csv", ["a,b"]), "not read as examples"),
        (jsonl("folder/table.csv", ["a,b"]).parent, "no examples to train on"),
        (jsonl("val/val.jsonl", [{"text": "a"}]).parent, "no examples to train on .found val.jsonl"),
    ):
        with pytest.raises(UserError, match=cause) as caught:
            open_examples(path)
        assert caught.value.hint
    text = tmp_path / "one.txt"
    text.write_text("a whole book, and nothing that separates its parts")
    with pytest.raises(UserError, match=r"a single example.*\n.*<.endoftext.> separates several"):
        open_examples(text)
    jsonl("both/train.jsonl", [{"text": "a"}])
    jsonl("both/val.jsonl", [])
    with pytest.raises(UserError, match="no examples in it"):
        open_examples(tmp_path / "both")
