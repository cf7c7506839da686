"""The learner's folder: a .py file for each exercise that was begun, and learn/.state.json, what happened so far.

Tests: tests/learn/test_workshop.py.
"""

import time
from itertools import count
from pathlib import Path
from typing import Any

from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.files import read_json, write_json, write_text
from nano_llama.learn.catalogue import Exercise, exercises
from nano_llama.learn.plain_text import wrapped

STATES = ("new", "open", "passed")
HINTS_FOR_SOLUTION = 2


class Workshop:
    """What one learner has done in one folder. Every change is written at once, atomically."""

    def __init__(self, folder: Path = Path("learn")):
        self.folder = folder
        self._file = folder / ".state.json"
        self._state = self._read()

    def _read(self) -> dict[str, Any]:
        if not self._file.exists():
            return {"current": None, "exercises": {}}
        try:
            state = read_json(self._file, "record of your exercises")
        except FormatError as error:
            state = error
        if not _is_record(state):
            raise UserError(
                f"{self._file} is damaged: it is not a record of exercises.",
                hint="Move it away. Your exercises stay as they are; checks and hints are counted anew.",
            )
        return state

    # -- what is so

    def file(self, exercise: Exercise) -> Path:
        return self.folder / f"{exercise.name}.py"

    def facts(self, exercise: Exercise) -> dict[str, Any]:
        """started, passed, solution_shown: times (seconds since 1970) or absent; checks, hints: how many."""
        return {"checks": 0, "hints": 0, **self._state["exercises"].get(exercise.name, {})}

    def state(self, exercise: Exercise) -> str:
        facts = self.facts(exercise)
        return "passed" if "passed" in facts else "open" if "started" in facts else "new"

    def current(self) -> Exercise | None:
        """The exercise that was begun or chosen last."""
        return next((one for one in exercises() if one.name == self._state["current"]), None)

    def next_exercise(self) -> Exercise | None:
        """The current one as long as it is open; else the first behind it that is not passed, then from the start."""
        current = self.current()
        every = list(exercises())
        start = every.index(current) if current else 0
        return next((one for one in every[start:] + every[:start] if self.state(one) != "passed"), None)

    # -- what happens

    def begin(self, exercise: Exercise) -> bool:
        """Make it the current one; write its stub where there is no file yet, and say whether that was so."""
        file = self.file(exercise)
        created = not file.exists()
        if created:
            write_text(file, starting_text(exercise))
        self._record(exercise, {}, current=True)
        return created

    def checked(self, exercise: Exercise, passed: bool) -> None:
        self._state = self._read()  # during --watch, hints are taken in another terminal
        facts: dict[str, Any] = {"checks": self.facts(exercise)["checks"] + 1}
        if passed and self.state(exercise) != "passed":
            facts["passed"] = time.time()
        self._record(exercise, facts)

    def hint(self, exercise: Exercise) -> int:
        """Take the next hint: how many are open now. Each is recorded, with its time."""
        facts = self.facts(exercise)
        if facts["hints"] < len(exercise.hints) and "passed" not in facts:
            facts["hints"] += 1
            self._record(exercise, {"hints": facts["hints"], "hint_times": [*facts.get("hint_times", []), time.time()]})
        return len(exercise.hints) if "passed" in facts else facts["hints"]

    def open_solution(self, exercise: Exercise) -> bool:
        """Allow the solution to be shown, after success or after two hints; the latter is marked: True.

        Raises UserError where it is too early.
        """
        facts = self.facts(exercise)
        if "passed" in facts and "solution_shown" not in facts:
            return False
        if facts["hints"] < HINTS_FOR_SOLUTION and "solution_shown" not in facts:
            raise UserError(
                f"The solution of {exercise.name} opens when it is passed, or after {HINTS_FOR_SOLUTION} hints.",
                hint="Next:  nano-llama learn hint",
            )
        if "solution_shown" not in facts:
            self._record(exercise, {"solution_shown": time.time()})
        return True

    def reset(self, exercise: Exercise) -> Path | None:
        """The stub again. The old file is kept beside it: its path, or None where there was none."""
        file, kept = self.file(exercise), None
        if file.exists():
            names = (file.with_name(f"{file.stem}.old-{number}.py") for number in count(1))
            kept = next(name for name in names if not name.exists())
            file.rename(kept)
        facts = self._state["exercises"].get(exercise.name, {})
        facts.pop("passed", None)
        self.begin(exercise)
        return kept

    def write_solution(self, exercise: Exercise) -> Path:
        """The reference in place of the learner's file, which is kept."""
        self.reset(exercise)
        write_text(self.file(exercise), exercise.solution)
        return self.file(exercise)

    def _record(self, exercise: Exercise, facts: dict[str, Any], current: bool = False) -> None:
        kept = self._state["exercises"].setdefault(exercise.name, {"started": time.time()})
        kept.update(facts)
        if current:
            self._state["current"] = exercise.name
        write_json(self._file, self._state)


def _is_record(state: Any) -> bool:
    """Whether a workshop could have written this."""
    if not isinstance(state, dict) or state.keys() != {"current", "exercises"}:
        return False
    return isinstance(state["exercises"], dict) and all(map(_are_facts, state["exercises"].values()))


def _are_facts(facts: Any) -> bool:
    if not isinstance(facts, dict) or not isinstance(facts.get("hint_times", []), list):
        return False
    times = [facts[name] for name in ("started", "passed", "solution_shown") if name in facts]
    counts = [facts[name] for name in ("checks", "hints") if name in facts]
    return all(isinstance(one, float) for one in times) and all(isinstance(one, int) for one in counts)


def starting_text(exercise: Exercise) -> str:
    """The learner's file at first: the statement as its docstring, then the stub."""
    short = exercise.name.split("/")[1].split("_", 1)[1]
    return (
        f'"""{exercise.title}  {stars_text(exercise)}  about {exercise.minutes} minutes  ({exercise.name})\n\n'
        + wrapped(exercise.statement)
        + f"\n\nCheck it:  nano-llama learn check {short}      A hint:  nano-llama learn hint {short}\n"
        + f'"""\n\n{exercise.stub}'
    )


def stars_text(exercise: Exercise) -> str:
    return "●" * exercise.stars + "○" * (3 - exercise.stars)
