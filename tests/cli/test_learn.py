"""`nano-llama learn`: a learner plays: wrong, hint, right, next; lists, resets, JSON, exit codes, mistakes."""

import threading
import time

import pytest

from nano_llama.learn import exercise, exercises
from nano_llama.learn.workshop import Workshop, starting_text

NAME = "06_norms/02_qk_norm"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_learner_plays(cli, folder):
    begun = cli("learn", "goto", "qk_norm")
    assert begun.code == 0
    assert "learn/06_norms/02_qk_norm.py" in begun.out
    file = folder / "learn" / "06_norms" / "02_qk_norm.py"
    assert file.read_text() == starting_text(exercise(NAME))

    stub = cli("learn", "check")
    assert stub.code == 1
    assert "returned None" in stub.out

    early = cli("learn", "solution")
    assert early.code == 2
    assert "after 2 hints" in early.err

    wrong = exercise(NAME).folder / "wrong" / "sum_for_mean.py"
    file.write_text(wrong.read_text())
    failed = cli("learn", "check")
    assert failed.code == 1
    for words in ("gradients against central differences", "K = 2", "expected at [", "found at [", "1/K of the mean"):
        assert words in failed.out

    hint = cli("learn", "hint")
    assert hint.code == 0
    assert "a question" in hint.out
    assert "np.mean" not in hint.out

    file.write_text(exercise(NAME).solution)
    passed = cli("learn", "check")
    assert passed.code == 0
    assert "public checks passed" in passed.out
    assert cli("learn", "solution").out.strip() == exercise(NAME).solution.strip()

    following = cli("learn", "next", "--json").json
    assert following["name"] != NAME
    assert following["created"]
    assert (folder / following["file"]).is_file()
    states = {one["name"]: one["state"] for one in cli("learn", "list", "--json").json["exercises"]}
    assert states[NAME] == "passed"
    assert states[following["name"]] == "open"


def test_the_list_as_json(cli):
    listed = cli("learn", "list", "--json").json["exercises"]
    assert [one["name"] for one in listed] == [one.name for one in exercises()]
    for one in listed:
        assert one.keys() == {"name", "chapter", "stars", "state", "file"}
        assert one["name"].startswith(one["chapter"] + "/")
        assert one["file"] == f"learn/{one['name']}.py"
        assert one["state"] == "new"


def test_a_check_as_json(cli):
    cli("learn", "goto", NAME)
    failed = cli("learn", "check", "--json", "--seed", 3)
    assert failed.code == 1
    assert failed.json["passed"] is False
    assert failed.json["stage"] == "shapes"
    assert failed.json["seed"] == 3
    assert cli("learn", "dev", "solution", NAME, "--json").json["file"] == f"learn/{NAME}.py"
    passed = cli("learn", "check", NAME, "--json")
    assert passed.code == 0
    assert passed.json["passed"] is True


def test_hints_solution_and_marks(cli):
    cli("learn", "goto", NAME)
    assert [cli("learn", "hint", "--json").json["left"] for _ in range(4)] == [2, 1, 0, 0]
    assert cli("learn", "solution", "--json").json["before_success"] is True
    assert "solution read" in cli("learn", "list").out
    row = next(row for row in cli("learn", "progress", "--json").json["chapters"] if row["chapter"] == "06_norms")
    assert (row["passed"], row["hints"], row["solutions_read"]) == (0, 3, 1)


def test_reset_keeps_the_old_file(cli, folder):
    cli("learn", "goto", NAME)
    file = folder / "learn" / f"{NAME}.py"
    file.write_text("mine")
    done = cli("learn", "reset", "--json")
    assert (folder / done.json["kept"]).read_text() == "mine"
    assert file.read_text() == starting_text(exercise(NAME))


def test_watch_checks_again_at_every_save(cli, folder):
    cli("learn", "goto", NAME)
    file = folder / "learn" / f"{NAME}.py"

    def save():
        deadline = time.monotonic() + 60
        while Workshop().facts(exercise(NAME))["checks"] < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        new = file.with_suffix(".new")  # as editors save: a new file in place of the old
        new.write_text(exercise(NAME).solution)
        new.replace(file)

    saver = threading.Thread(target=save)
    saver.start()
    done = cli("learn", "check", "--watch")
    saver.join()
    assert done.code == 0
    assert done.out.count("failed") == 1
    assert "public checks passed" in done.out


def test_dev_check_of_one(cli):
    done = cli("learn", "dev", "check", NAME, "--json")
    assert done.code == 0
    assert done.json["good"]
    assert done.json["named"] == done.json["wrong_solutions"] >= 4
    assert done.json["mutants_rejected"] >= 0.95


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["check"], "No exercise is begun"),
        (["check", "nonsense"], "nonsense"),
        (["check", NAME], "There is no learn/06_norms/02_qk_norm.py yet"),
        (["goto"], "Where to?"),
        (["list", "x"], "takes no name"),
        (["next", "--watch"], "--watch and --seed belong to check"),
        (["hint", "--seed", "1"], "--watch and --seed belong to check"),
        (["dance"], "dance"),
        (["dev"], "dev check"),
        (["dev", "solution"], "dev check"),
        (["hint", NAME, "more"], "What is 'more'?"),
        (["check", NAME, "--seed", "-1"], "seed"),
        (["--port", "8000"], "--book and --port belong to --serve"),
        (["list", "--book", "x"], "--book and --port belong to --serve"),
        (["check", "--serve"], "--serve does not go with check"),
        (["--serve", "--book", "nowhere"], "no built book in nowhere"),
    ],
)
def test_misuse(cli, args, says):
    done = cli("learn", *args)
    assert done.code == 2
    assert says in done.err
