"""A tree stands in for some files of the package; lines are followed through changes."""

import subprocess
import sys

import pytest

from nano_llama.learn.museum.trees import PACKAGE, TextIsGone, changed_lines, edited, same_lines, sound, write_tree


def test_a_tree_replaces_its_files_and_nothing_else(tmp_path, units_room):
    write_tree(tmp_path, edited(units_room.files, units_room.plant))
    code = (
        "import nano_llama, nano_llama.core.units as units, nano_llama.core.errors as errors\n"
        "print(nano_llama.LlamaConfig.__name__, units.size_text(1024), units.__file__, errors.__file__, sep='|')"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    name, shown, units, errors = ran.stdout.strip().split("|")
    assert (name, shown) == ("LlamaConfig", "1,024 bytes")
    assert units == str(tmp_path / "nano_llama" / "core" / "units.py")
    assert errors == str(PACKAGE / "core" / "errors.py")


def test_the_command_too_runs_on_the_tree(tmp_path, units_room):
    write_tree(tmp_path, {"core/version.py": sound("core/version.py").replace("VERSION = ", "VERSION = 'mine' or ")})
    ran = subprocess.run(
        [sys.executable, "-m", "nano_llama", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "nano-llama mine"


def test_an_old_text_must_stand_there_once(make_units_room):
    with pytest.raises(TextIsGone, match="0 times: 'if count < 1025:'"):
        edited((), make_units_room(("if count < 1024:", "if count < 1025:")).plant)
    with pytest.raises(TextIsGone, match=r"core/units.py holds \d+ times: 'count'"):
        edited((), make_units_room(("if count < 1024:", "count")).plant)


def test_edits_of_one_file_add_up(make_units_room):
    room = make_units_room()
    (text,) = edited(["core/units.py"], [*room.plant, *room.variant]).values()
    assert "count <= 1024" in text
    assert "count /= 1000" in text


def test_lines_that_a_change_touches():
    before = "a\nb\nc\nd\ne\n"
    assert changed_lines(before, "a\nb\nC\nd\ne\n") == {2, 3, 4}
    assert changed_lines(before, "a\nb\nd\ne\n") == {2, 3}, "of a line that is gone: its neighbours"
    assert changed_lines(before, "a\nb\nnew\nc\nd\ne\n") == {2, 3, 4}
    assert changed_lines(before, before) == set()


def test_a_line_is_followed_into_the_text_before_the_change():
    ours = "a\nb\nc\nd\n"
    assert same_lines(4, "a\nnew\nb\nc\nd\n", ours) == {3}
    assert same_lines(2, "a\nB\nc\nd\n", ours) == {2}
    assert same_lines(2, "a\nnew\nb\nc\nd\n", ours) == set(), "a line of the learner's own"
    assert same_lines(9, ours, ours) == set()
    long = "".join(f"line {i}\n" for i in range(40))
    assert len(same_lines(1, "all of it\n", long)) <= 2, "one line does not stand for forty"
    assert same_lines(3, "a\nB\nC\nd\n", ours) == {2, 3}
