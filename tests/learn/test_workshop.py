"""The learner's folder: files and record, hints, the solution's lock, reset; a kill or damage loses no work."""

import json

import pytest

from nano_llama.core.errors import UserError
from nano_llama.learn import exercises
from nano_llama.learn.workshop import Workshop, starting_text

FIRST = exercises()[0]


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path / "learn")


def test_nothing_is_written_by_looking(workshop, tmp_path):
    assert workshop.state(FIRST) == "new"
    assert workshop.current() is None
    assert workshop.next_exercise() == FIRST
    assert list(tmp_path.iterdir()) == []


def test_begin_writes_the_stub_once(workshop):
    assert workshop.begin(FIRST)
    file = workshop.file(FIRST)
    assert file.read_text() == starting_text(FIRST)
    file.write_text("mine")
    assert not workshop.begin(FIRST)
    assert file.read_text() == "mine"
    assert workshop.state(FIRST) == "open"


def test_the_record_is_there_for_the_next_process(workshop):
    workshop.begin(FIRST)
    workshop.hint(FIRST)
    workshop.checked(FIRST, passed=False)
    workshop.checked(FIRST, passed=True)
    again = Workshop(workshop.folder)
    assert again.current() == FIRST
    assert again.state(FIRST) == "passed"
    assert (again.facts(FIRST)["checks"], again.facts(FIRST)["hints"]) == (2, 1)


def test_a_passed_exercise_stays_passed_when_it_is_broken_later(workshop):
    workshop.begin(FIRST)
    workshop.checked(FIRST, passed=True)
    when = workshop.facts(FIRST)["passed"]
    workshop.checked(FIRST, passed=False)
    workshop.checked(FIRST, passed=True)
    assert workshop.facts(FIRST)["passed"] == when


def test_hints_open_one_by_one_with_their_times_and_all_after_success(workshop):
    workshop.begin(FIRST)
    assert [workshop.hint(FIRST) for _ in range(4)] == [1, 2, 3, 3]
    assert len(workshop.facts(FIRST)["hint_times"]) == 3
    workshop.reset(FIRST)
    other = exercises()[-1]
    workshop.begin(other)
    workshop.checked(other, passed=True)
    assert workshop.hint(other) == 3
    assert workshop.facts(other)["hints"] == 0, "read after success, they are not counted"


def test_the_solution_opens_after_success_or_two_hints(workshop):
    workshop.begin(FIRST)
    with pytest.raises(UserError, match="opens when it is passed, or after 2 hints"):
        workshop.open_solution(FIRST)
    workshop.hint(FIRST)
    with pytest.raises(UserError):
        workshop.open_solution(FIRST)
    workshop.hint(FIRST)
    assert workshop.open_solution(FIRST), "marked"
    workshop.checked(FIRST, passed=True)
    assert workshop.open_solution(FIRST), "the mark stays"
    other = exercises()[-1]
    workshop.begin(other)
    workshop.checked(other, passed=True)
    assert not workshop.open_solution(other)
    assert "solution_shown" not in workshop.facts(other)


def test_reset_keeps_every_old_file(workshop):
    workshop.begin(FIRST)
    file = workshop.file(FIRST)
    kept = []
    for text in ("first", "second"):
        file.write_text(text)
        workshop.checked(FIRST, passed=True)
        kept.append(workshop.reset(FIRST))
        assert workshop.state(FIRST) == "open"
    assert [path.read_text() for path in kept] == ["first", "second"]
    assert file.read_text() == starting_text(FIRST)


@pytest.mark.skipif(len(exercises()) < 3, reason="three exercises are needed")
def test_next_is_the_open_one_then_what_follows_then_what_was_left_out(workshop):
    one, two, three, *rest = exercises()
    workshop.begin(two)
    assert workshop.next_exercise() == two
    workshop.checked(two, passed=True)
    assert workshop.next_exercise() == three
    for other in (three, *rest):
        workshop.begin(other)
        workshop.checked(other, passed=True)
    assert workshop.next_exercise() == one
    workshop.begin(one)
    workshop.checked(one, passed=True)
    assert workshop.next_exercise() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"exercises": 3}',
        '{"exercises": {}}',
        '{"current": null, "exercises": {"06_norms/02_qk_norm": 3}}',
        '{"current": null, "exercises": {"06_norms/02_qk_norm": {"hints": "two"}}}',
        '{"current": null, "exercises": {"06_norms/02_qk_norm": {"started": "today"}}}',
        '{"current": null, "exercises": {"06_norms/02_qk_norm": {"hint_times": 1}}}',
    ],
)
def test_a_damaged_record_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / ".state.json").write_text(text)
    with pytest.raises(UserError, match=r"state\.json is damaged"):
        Workshop(tmp_path)


def test_a_watching_process_keeps_what_another_records(workshop):
    workshop.begin(FIRST)
    other = Workshop(workshop.folder)
    other.hint(FIRST)
    workshop.checked(FIRST, passed=False)
    assert Workshop(workshop.folder).facts(FIRST)["hints"] == 1


def test_the_record_is_plain_json(workshop):
    workshop.begin(FIRST)
    assert json.loads((workshop.folder / ".state.json").read_text())["current"] == FIRST.name
