"""bench/gpu.py: what fits into a call, a section that hangs or crashes, its lines, and that it needs few packages."""

import json
import operator
import os
import subprocess
import sys

import pytest
from gpu_sections import driver
from gpu_sections.driver import CALL_SECONDS, PlannedClock, Worker, run
from gpu_sections.table import SECTIONS, Section, by_name

from helpers.training import HandClock
from nano_llama.core.errors import UserError

LACKING = ("cyclopts", "zstandard", "schedulefree", "peft", "starlette", "uvicorn", "llama_cpp")  # on a card's machine


def section(name, seconds=10, limit=20):
    return Section(name, "stub_sections", 1, seconds, limit, True, "")


class FakeProcess:
    """Takes `seconds` on the clock, or its limit where that is shorter."""

    def __init__(self, section, clock, seconds, log):
        self.section, self.clock, self.seconds, self.log = section, clock, seconds, log
        log.append(f"begin {section.name}")

    def go(self, limit):
        self.log.append(f"go {self.section.name} {limit:g}")
        self.clock.now += min(self.seconds, limit)
        status = "done" if self.seconds <= limit else "killed"
        return {"status": status, "errors": [], "rows": [{"met": True}]}

    def end(self):
        self.log.append(f"end {self.section.name}")


def run_fakes(sections, seconds, total):
    clock, log = HandClock(), []
    lines = list(run(sections, lambda one: FakeProcess(one, clock, seconds[one.name], log), seconds=total, clock=clock))
    return lines, log


def test_the_next_process_starts_while_a_section_runs_and_goes_after_its_end():
    lines, log = run_fakes([section("a"), section("b")], {"a": 8, "b": 9}, 100)
    assert log == ["begin a", "begin b", "go a 20", "end a", "go b 20", "end b"]
    assert [(line["section"], line["status"], line["passed"], line["seconds"]) for line in lines] == [
        ("a", "done", True, 8.0), ("b", "done", True, 9.0),
    ]  # fmt: skip


def test_what_a_call_has_no_time_for_is_skipped_and_what_fits_is_run():
    sections = [section("a", 10, 40), section("long", 60, 80), section("short", 5, 20)]
    lines, log = run_fakes(sections, {"a": 35, "long": 60, "short": 3}, 80)
    assert [line["status"] for line in lines] == ["done", "skipped", "done"]
    assert lines[1]["errors"] == ["skipped: 60 s are needed, 45 are left"]
    assert not lines[1]["passed"]
    assert "go long" not in " ".join(log)
    assert log.count("begin long") == log.count("end long"), "what was started ahead is ended"


def test_no_section_runs_past_the_end_of_the_call():
    lines, log = run_fakes([section("a", 10, 40)], {"a": 100}, 25)
    assert "go a 25" in log
    assert lines[0]["status"] == "killed"
    assert lines[0]["seconds"] == 25


@pytest.mark.parametrize("call", [1, 2])
def test_a_call_holds_its_sections(call):
    sections = [one for one in SECTIONS if one.call == call]
    assert sum(one.seconds for one in sections) <= CALL_SECONDS
    assert all(one.seconds <= one.limit for one in sections)


def test_every_section_is_a_function_of_its_module(bench):
    for one in SECTIONS:
        source = (bench / one.module.replace(".", "/")).with_suffix(".py").read_text()
        assert f"\ndef {one.name}(place: Place, report: Report)" in source
    with pytest.raises(UserError, match="flush"):
        by_name("flush")


STUBS = """
import os, sys, time
from gpu_sections.table import Bar

def good(place, report):
    print("noise of a library")
    report.row("speed", 2.0, "tokens/s", Bar(at_least=1.0))

def slow(place, report):
    report.row("first", 1.0, "", Bar(at_least=0.5))
    time.sleep(600)

def crash(place, report):
    report.row("first", 1.0)
    os.abort()

def wrong(place, report):
    with report.attempt("a kernel"):
        raise RuntimeError("CUDA error: an illegal memory access")
    report.row("error", float("nan"), "relative", Bar(at_most=1e-5))
    raise ValueError("and then this")
"""


def run_stubs(tmp_path, monkeypatch, names, **options):
    """The stubs' lines, from real processes."""
    (tmp_path / "stub_sections.py").write_text(STUBS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = {"rehearse": False, "scratch": str(tmp_path), "shakespeare": None, **options}
    with (tmp_path / "log").open("w") as log:
        return {
            line["section"]: line
            for line in run([section(name, 1, 6 if name == "slow" else 60) for name in names],
                            lambda one: Worker(one, options, log))
        }  # fmt: skip


def test_hanging_crashing_and_failing_sections_cost_only_themselves(tmp_path, monkeypatch):
    lines = run_stubs(tmp_path, monkeypatch, ["slow", "crash", "wrong", "good"])
    assert [line["status"] for line in lines.values()] == ["killed", "crashed", "failed", "done"]
    assert lines["slow"]["rows"][0]["what"] == "first", "what it had found before is kept"
    assert lines["slow"]["errors"] == ["slow: not done after its limit of 6 s"]
    assert "status -6" in lines["crash"]["errors"][0]
    assert lines["wrong"]["errors"] == [
        "a kernel: RuntimeError: CUDA error: an illegal memory access", "wrong: ValueError: and then this",
    ]  # fmt: skip
    assert lines["wrong"]["rows"][0] | {"value": None, "met": False} == lines["wrong"]["rows"][0], "NaN meets no bar"
    assert [line["passed"] for line in lines.values()] == [False, False, False, True]
    assert "noise of a library" in (tmp_path / "log").read_text()
    assert all(json.loads(json.dumps(line)) == line for line in lines.values())


def test_a_killed_section_leaves_no_process(tmp_path, monkeypatch):
    (tmp_path / "stub_sections.py").write_text("def hang(place, report):\n    import time; time.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = Worker(section("hang"), {"rehearse": False, "scratch": str(tmp_path), "shakespeare": None}, None)
    assert worker.go(0.5)["status"] == "killed"
    worker.end()
    assert worker.popen.returncode == -9
    worker.end()  # twice does no harm


def test_speeds_of_a_rehearsal_are_not_judged(tmp_path, monkeypatch):
    stub = Section("good", "stub_sections", 1, 1, 60, False, "")
    (tmp_path / "stub_sections.py").write_text(STUBS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = {"rehearse": True, "scratch": str(tmp_path), "shakespeare": None}
    (line,) = run([stub], lambda one: Worker(one, options, None))
    assert line["rows"][0]["met"] is None
    assert line["passed"]


@pytest.mark.parametrize("processes", [0, 2])
def test_cases_side_by_side_keep_their_order_and_their_failures(processes):
    measure = pytest.importorskip("gpu_sections.measure")
    four, failure, nine = measure.in_processes(operator.floordiv, [(8, 2), (1, 0), (27, 3)], processes)
    assert (four, nine) == (4, 9)
    assert "ZeroDivisionError" in str(failure)


def test_a_rehearsal_plans_the_seconds_of_a_card():
    clock = PlannedClock()
    clock.passed({"section": "flash", "status": "done"})
    clock.passed({"section": "nano", "status": "skipped"})
    assert clock() == by_name("flash").seconds


def lacking(folder):
    """A folder for PYTHONPATH with which LACKING cannot be imported, as if they were not installed."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {LACKING} else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
""")
    return str(folder)


def rehearse(bench, folder, *arguments):
    """The command in a process of its own, started elsewhere -> (exit status, lines)."""
    environment = {**os.environ, "PYTHONPATH": lacking(folder / "without")}
    done = subprocess.run(
        [sys.executable, str(bench / "gpu.py"), "--rehearse", "--out", str(folder / "out"), *arguments],
        capture_output=True, text=True, env=environment, cwd=folder,
    )  # fmt: skip
    log = folder / "out" / "gpu.log"
    lines = [json.loads(row) for row in done.stdout.splitlines()]
    return done.returncode, lines, done.stderr + (log.read_text() if log.exists() else "")


def test_rehearsal_from_a_checkout_without_what_a_card_lacks(bench, tmp_path):
    pytest.importorskip("transformers")
    code, lines, said = rehearse(bench, tmp_path, "--only", "gradients,generate_135m")
    assert [line["section"] for line in lines] == ["gradients", "generate_135m"]
    assert code == 0 and all(line["passed"] for line in lines), said
    saved = json.loads((tmp_path / "out" / "gpu_rehearsal.json").read_text())
    assert saved["rehearsal"] and not saved["passed"]
    assert {name: one["rows"] for name, one in saved["sections"].items()} == {
        line["section"]: line["rows"] for line in lines
    }


def test_the_blocked_packages_are_indeed_missing(tmp_path):
    code = f"import importlib.util as u; print([n for n in {LACKING} if u.find_spec(n)])"
    environment = {**os.environ, "PYTHONPATH": lacking(tmp_path / "without")}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert said.stdout.strip() == "[]", said.stderr


def test_the_driver_imports_neither_torch_nor_numba(bench):
    code = "import sys; import gpu; print([n for n in ('torch', 'numba', 'transformers') if n in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=bench)
    assert said.stdout.strip() == "[]", said.stderr


@pytest.mark.slow  # every section in a process of its own: two minutes
def test_the_whole_rehearsal(bench, tmp_path):
    code, lines, said = rehearse(bench, tmp_path)
    assert [line["section"] for line in lines] == [one.name for one in SECTIONS]
    assert {line["status"] for line in lines} <= {"done", "skipped"}, said
    assert not [line for line in lines if line["status"] == "skipped" and "triton" not in line["errors"][0]]
    assert code == 0, [line["errors"] for line in lines]


def test_what_cannot_be_started_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    line = run_stubs(tmp_path, monkeypatch, ["missing"])["missing"]
    assert line["status"] == "crashed"
    assert driver.line_of(section("x"), {"status": "done", "rows": [], "errors": []}, 0)["passed"] is False
