"""`nano-llama museum`: a visit from the symptom to the trap; JSON, exit codes, mistakes."""

import pytest

from nano_llama.learn.museum import room, rooms
from nano_llama.learn.museum.trees import edited, sound

MASKS = "vol1_numpy/masks.py"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fault_line():
    lines = edited([MASKS], room(2).plant)[MASKS].splitlines()
    return next(number for number, line in enumerate(lines, 1) if "np.tri(" in line)


def test_a_visit(cli, folder):
    entered = cli("museum", "enter", 2)
    assert entered.code == 0
    assert "My small model learns at last!" in entered.out
    assert "masks" not in room(2).symptom

    early = cli("museum", "page", 2)
    assert early.code == 2
    assert "opens when it is fixed" in early.err

    wrong = cli("museum", "answer", 2, "--line", "masks.py:1")
    assert wrong.code == 1
    assert wrong.out.splitlines() == ["The fault is not there. 2 tries are left."]
    line = f"masks.py:{fault_line()}"
    right = cli("museum", "answer", 2, "--line", line)
    assert right.code == 0
    assert all(cause in right.out for cause in room(2).causes)
    assert "2 tries are left" in right.out, "a right line uses none"
    named = cli("museum", "answer", 2, "--line", line, "--cause", room(2).cause, "--json")
    assert named.code == 0
    assert (named.json["right_line"], named.json["right_cause"], named.json["state"]) == (True, True, "located")
    assert "2 tries are left" in cli("museum", "answer", 2, "--line", "masks.py:1").out, "it costs none any more"

    unrepaired = cli("museum", "check", 2)
    assert unrepaired.code == 1
    assert unrepaired.out.splitlines() == ["fix: not yet. The room's files are as you got them."], "nothing given away"
    file = folder / "museum" / "02" / "nano_llama" / MASKS
    file.write_text(file.read_text() + "# changed, not repaired\n")
    unrepaired = cli("museum", "check", 2)
    assert unrepaired.out.startswith("fix: not yet. test_")
    assert "np.tri" not in unrepaired.out
    (folder / "museum" / "02" / "nano_llama" / MASKS).write_text(sound(MASKS))
    (folder / "museum" / "02" / "test_room.py").write_text(room(2).detector)
    passed = cli("museum", "check", 2, "--json")
    assert passed.code == 0
    assert passed.json["fix"]["passed"] and passed.json["trap"]["passed"]
    assert passed.json["state"] == "trapped"
    page = cli("museum", "page", 2)
    assert room(2).history[0] in page.out
    assert room(2).detector.splitlines()[0] in page.out, "and our test"
    states = {one["number"]: one["state"] for one in cli("museum", "list", "--json").json["rooms"]}
    assert states[2] == "trapped" and states[36] == "new"


def test_three_tries(cli):
    cli("museum", "enter", 2)
    wrong_cause = next(letter for letter in "abcde" if letter != room(2).cause)
    line = f"nano_llama/{MASKS}:{fault_line()}"
    tried = cli("museum", "answer", 2, "--line", line, "--cause", wrong_cause, "--json")
    assert tried.code == 1
    assert (tried.json["right_line"], tried.json["right_cause"], tried.json["tries_left"]) == (True, False, 2)
    cli("museum", "answer", 2, "--line", "layer.py:1")
    assert "0 tries are left" in cli("museum", "answer", 2, "--line", "layer.py:1").out
    assert "(no try is left)" in cli("museum", "enter", 2).err
    used = cli("museum", "answer", 2, "--line", line, "--cause", room(2).cause)
    assert used.code == 2
    assert "The three tries of room 2 are used" in used.err


def test_the_list_as_json(cli):
    listed = cli("museum", "list", "--json").json["rooms"]
    assert [one["number"] for one in listed] == [one.number for one in rooms()]
    assert all(one.keys() == {"number", "title", "stars", "state"} for one in listed)
    assert {one["state"] for one in listed} == {"new"}


def test_entering_as_json(cli, folder):
    entered = cli("museum", "enter", 36, "--json").json
    assert entered["created"] and not cli("museum", "enter", 36, "--json").json["created"]
    assert all((folder / file).is_file() for file in [*entered["files"], entered["test"]])
    assert entered["symptom"] == room(36).symptom
    assert "causes" not in entered, "they are shown with the right line"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("enter",), "Which room?"),
        (("enter", "x"), "'x' is not a room's number"),
        (("enter", "99"), "There is no room 99"),
        (("list", "2"), "takes no number"),
        (("check", "36"), "Room 36 is not entered here"),
        (("check", "2", "--line", "a:1"), "belong to answer"),
        (("enter", "2", "3"), "What is '3'?"),
        (("answer", "2"), "Where is the fault?"),
        (("answer", "2", "--line", "masks.py"), "is not FILE:LINE"),
        (("answer", "2", "--line", "attention.py:3"), "'attention.py' is not among the files of room 2"),
        (("answer", "2", "--line", "masks.py:9999"), "has lines 1 to"),
        (("answer", "2", "--line", "masks.py:3", "--cause", "f"), "is none of a, b, c, d, e"),
        (("dev", "x"), "There is no  museum dev x"),
        (("dev", "check", "99"), "no such rooms"),
    ],
)
def test_mistakes(cli, arguments, message):
    cli("museum", "enter", 2)
    made = cli("museum", *arguments)
    assert made.code == 2
    assert message in made.err


def test_authors_check_a_room(cli):
    checked = cli("museum", "dev", "check", 2, "--json")
    assert checked.code == 0
    assert checked.json == {"good": True, "rooms": 1, "faults": {}}
