"""The learner's folder: files, states, tries, and a record that is damaged."""

import subprocess
import sys

import pytest

from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.learn.museum.visit import Visit


@pytest.fixture
def visit(tmp_path):
    return Visit(tmp_path / "museum")


def test_entering_writes_the_fault_once(visit, units_room, tmp_path):
    assert visit.state(units_room) == "new"
    with pytest.raises(UserError, match="not entered"):
        visit.require_entered(units_room)
    assert visit.enter(units_room)
    folder = tmp_path / "museum" / "77"
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    assert files == [
        "SYMPTOM.txt", "nano_llama/__init__.py", "nano_llama/core/units.py", "nano_llama/core/version.py",
        "test_room.py",
    ]  # fmt: skip
    assert "count <= 1024" in (folder / "nano_llama/core/units.py").read_text()
    (folder / "nano_llama/core/units.py").write_text("mine")
    assert not visit.enter(units_room)
    assert (folder / "nano_llama/core/units.py").read_text() == "mine"
    assert visit.state(units_room) == "entered"
    visit.require_entered(units_room)


def test_states_and_tries_are_kept(visit, units_room, tmp_path):
    visit.enter(units_room)
    visit.use_try(units_room)
    visit.reach(units_room, "fixed")
    again = Visit(tmp_path / "museum")
    assert again.tries_left(units_room) == 2
    assert again.state(units_room) == "fixed"
    first = again.facts(units_room)["fixed"]
    again.reach(units_room, "fixed")
    assert again.facts(units_room)["fixed"] == first, "the first time counts"
    again.reach(units_room, "trapped")
    again.reach(units_room, "located")
    assert again.state(units_room) == "trapped", "the furthest"


def test_whether_the_test_is_written(visit, units_room):
    visit.enter(units_room)
    assert not visit.is_written(units_room)
    visit.test_file(units_room).write_text("def test_mine(): ...\n")
    assert visit.is_written(units_room)
    visit.test_file(units_room).write_bytes(b"\xff no text")
    assert visit.is_written(units_room)
    visit.test_file(units_room).unlink()
    assert not visit.is_written(units_room)


def test_the_stub_runs_every_test_of_its_file(visit, units_room):
    visit.enter(units_room)
    file = visit.test_file(units_room)
    text = file.read_text().replace("raise NotImplementedError", "pass")
    file.write_text(text.replace("\n\nif __name__", '\n\ndef test_more():\n    assert False, "seen"\n\n\nif __name__'))
    ran = subprocess.run([sys.executable, file.name], cwd=file.parent, capture_output=True, text=True)
    assert ran.stdout == "passed: test_room\n"
    assert ran.returncode == 1
    assert "seen" in ran.stderr


def test_whether_files_are_as_they_were_entered(visit, units_room, tmp_path):
    visit.enter(units_room)
    assert visit.is_unchanged(units_room)
    file = tmp_path / "museum/77/nano_llama/core/units.py"
    file.write_text(file.read_text() + "# mine\n")
    assert not visit.is_unchanged(units_room)


def test_a_visit_goes_on_from_within_its_rooms(units_room, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Visit().enter(units_room)
    (tmp_path / "museum/elsewhere").mkdir()
    for folder in ("museum", "museum/77", "museum/77/nano_llama/core", "museum/elsewhere"):
        monkeypatch.chdir(tmp_path / folder)
        assert Visit().folder(units_room).resolve() == tmp_path / "museum/77"
        assert Visit().state(units_room) == "entered"
    (tmp_path / "other/museum").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "other/museum")  # no visit began here
    assert Visit().state(units_room) == "new"


def test_a_file_by_its_name_or_its_path(visit, make_units_room):
    room = make_units_room(('"core/version.py"', '"formats/__init__.py", "core/__init__.py"'))
    visit.enter(room)
    for name in (
        "units.py",
        "core/units.py",
        "./nano_llama/core/units.py",
        "/home/me/museum/77/nano_llama/core/units.py",
    ):
        assert visit.file_of(room, name)[0] == "core/units.py"
    for name, message in (
        ("version.py", "is not among"),
        ("vol1/units.py", "is not among"),
        ("__init__.py", "could be"),
    ):
        with pytest.raises(UserError, match=message):
            visit.file_of(room, name)


def test_a_file_that_is_gone(visit, units_room, tmp_path):
    visit.enter(units_room)
    visit.require_files(units_room)
    (tmp_path / "museum/77/nano_llama/core/units.py").unlink()
    with pytest.raises(UserError, match=r"units\.py is gone"):
        visit.file_of(units_room, "version.py")


def test_without_its_init_the_package_itself_would_be_checked(visit, units_room, tmp_path):
    visit.enter(units_room)
    (tmp_path / "museum/77/nano_llama/__init__.py").unlink()
    with pytest.raises(UserError, match=r"__init__\.py is gone"):
        visit.require_files(units_room)


def test_a_room_of_another_version(visit, make_units_room):
    with pytest.raises(EnvironmentFault, match="does not fit this version"):
        visit.enter(make_units_room(("if count < 1024:", "if count < 1025:")))


@pytest.mark.parametrize("text", ["{", "[]", '{"77": 3}', '{"77": {"tries": "x"}}'])
def test_a_damaged_record(tmp_path, text):
    (tmp_path / ".state.json").write_text(text)
    with pytest.raises(UserError, match="damaged"):
        Visit(tmp_path)
