"""`nano-llama learn`: exercises with stubs, checks and hints, one set to each chapter of the book.

The learner's files and what happened so far are in ./learn (learn/workshop.py); a check runs in a process of its own
(learn/run_check.py). Tests: tests/cli/test_learn.py.
"""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from nano_llama.cli.common import NotNegative, Output, Screen, table
from nano_llama.core.errors import UserError
from nano_llama.learn.catalogue import HINT_STAGES, KINDS, Exercise, exercise, exercises
from nano_llama.learn.checks import STAGE_TITLES, STAGES, TEST_TITLES
from nano_llama.learn.plain_text import plain, wrapped
from nano_llama.learn.run_check import Verdict, check_file
from nano_llama.learn.workshop import Workshop, stars_text

Action = Literal["next", "list", "check", "hint", "progress", "solution", "reset", "goto", "dev"]
WATCH_SECONDS = 0.5
BOOK = Path(__file__).resolve().parents[2] / "book"  # in a clone
SITE = BOOK / "_build" / "html" if BOOK.is_dir() else Path("book/_build/html")


def run(
    action: Action = "next",
    name: str = "",
    name_for_dev: Annotated[str, Parameter(show=False)] = "",
    /,
    *,
    watch: bool = False,
    seed: Annotated[NotNegative | None, Parameter(show_default=False)] = None,
    serve: bool = False,
    book: Annotated[Path, Parameter(show_default=False)] = SITE,
    port: NotNegative = 0,
    output: Output | None = None,
) -> int:
    """Learn by writing: next writes an exercise's file, check checks it, hint helps.

    list, progress: all exercises; how far you are. solution: ours, once yours is passed or two hints are read.
    goto, reset: another exercise; this one from the start (your file is kept). dev check, dev solution NAME: for
    authors. A check runs your file in a process with limits of time and memory, which is not a sandbox.

    Parameters
    ----------
    action
        What to do.
    name
        The exercise, "06_norms/02_qk_norm" or its end, "qk_norm". By default the current one.
    watch
        With check: again whenever the file is saved, until it passes.
    seed
        With check: the random cases of an earlier check again. By default new ones.
    serve
        Serve the built book, for a browser on this machine, with a Run button under its cells: they run in this Python.
    book
        With --serve: the folder of the built book. By default book/_build/html.
    port
        With --serve: the port to listen on. 0: any that is free.
    """
    screen = Screen(output)
    if name_for_dev and action != "dev":
        raise UserError(f"What is {name_for_dev!r}?", hint=f"learn {action} takes one name.")
    if (watch or seed is not None) and action != "check":
        raise UserError("--watch and --seed belong to check.", hint="nano-llama learn check --watch")
    if serve:
        if action != "next":
            raise UserError(f"--serve does not go with {action}.", hint="nano-llama learn --serve")
        return serve_book(screen, book, port)
    if book != SITE or port:
        raise UserError("--book and --port belong to --serve.", hint="nano-llama learn --serve --book FOLDER")
    if action == "dev":
        return dev(screen, name, name_for_dev)
    workshop = Workshop()
    if action == "next":
        _no_name(action, name)
        return begin(screen, workshop, workshop.next_exercise())
    if action in ("list", "progress"):
        _no_name(action, name)
        return show_list(screen, workshop) if action == "list" else show_progress(screen, workshop)
    if action == "goto" and not name:
        raise UserError("Where to?", hint="nano-llama learn goto NAME; see  nano-llama learn list")
    chosen = exercise(name) if name else workshop.current()
    if chosen is None:
        raise UserError("No exercise is begun here yet.", hint="Begin with  nano-llama learn next")
    if action == "check":
        return check(screen, workshop, chosen, watch, seed)
    actions: dict[str, Callable[[Screen, Workshop, Exercise], int]] = {
        "goto": begin,
        "reset": reset,
        "hint": hint,
        "solution": solution,
    }
    return actions[action](screen, workshop, chosen)


def _no_name(action: str, name: str) -> None:
    if name:
        raise UserError(f"learn {action} takes no name, not {name!r}.", hint=f"nano-llama learn goto {name}")


def begin(screen: Screen, workshop: Workshop, chosen: Exercise | None) -> int:
    if chosen is None:
        screen.result({"name": None, "done": True}, "Every exercise is passed. See  nano-llama learn progress")
        return 0
    created = workshop.begin(chosen)
    data = {
        "name": chosen.name,
        "title": chosen.title,
        "chapter": chosen.chapter,
        "stars": chosen.stars,
        "minutes": chosen.minutes,
        "file": workshop.file(chosen),
        "created": created,
        "statement": chosen.statement,
    }
    screen.result(
        data,
        f"{chosen.title}  {stars_text(chosen)}  about {chosen.minutes} minutes  ({chosen.name})\n",
        wrapped(chosen.statement),
        f"\nChecked:    {KINDS[chosen.kind]}\nYour file:  {workshop.file(chosen)}",
    )
    chapter = BOOK / "chapters" / f"{chosen.chapter}.md"
    if chapter.is_file():
        screen.say(f"Chapter:    {chapter}", style="dim", whole_lines=True)
    screen.say("Check it:   nano-llama learn check        (--watch: at every save)", style="dim", whole_lines=True)
    screen.say("A hint:     nano-llama learn hint", style="dim", whole_lines=True)
    return 0


def reset(screen: Screen, workshop: Workshop, chosen: Exercise) -> int:
    kept = workshop.reset(chosen)
    file = workshop.file(chosen)
    remark = f"{file} is as at the start." + (f" What you had is in {kept}." if kept else "")
    screen.result({"name": chosen.name, "file": file, "kept": kept}, remark)
    return 0


def show_list(screen: Screen, workshop: Workshop) -> int:
    rows, listed = [], []
    current = workshop.current()
    for one in exercises():
        state, file = workshop.state(one), workshop.file(one)
        listed.append({"name": one.name, "chapter": one.chapter, "stars": one.stars, "state": state, "file": str(file)})
        mark = "->" if one == current else ""
        rows.append(
            (mark, one.name, stars_text(one), "" if state == "new" else state, _history(workshop, one), one.title)
        )
    screen.result({"exercises": listed}, table(("", "exercise", "stars", "state", "", "title"), rows))
    screen.say("\nThe next one:  nano-llama learn next", style="dim")
    return 0


def _history(workshop: Workshop, one: Exercise) -> str:
    facts = workshop.facts(one)
    hints = f"{facts['hints']} hint{'s' * (facts['hints'] > 1)}" if facts["hints"] else ""
    parts = [hints, "solution read" if "solution_shown" in facts else ""]
    return ", ".join(filter(None, parts))


def show_progress(screen: Screen, workshop: Workshop) -> int:
    rows = []
    for chapter in dict.fromkeys(one.chapter for one in exercises()):
        facts = [workshop.facts(one) for one in exercises() if one.chapter == chapter]
        passed = [fact for fact in facts if "passed" in fact]
        rows.append(
            {
                "chapter": chapter,
                "passed": len(passed),
                "exercises": len(facts),
                "checks": sum(fact["checks"] for fact in facts),
                "hints": sum(fact["hints"] for fact in facts),
                "solutions_read": sum("solution_shown" in fact for fact in facts),
                "minutes": round(sum(fact["passed"] - fact["started"] for fact in passed) / 60),
            }
        )
    done, every = sum(row["passed"] for row in rows), sum(row["exercises"] for row in rows)
    header = ("chapter", "passed", "of", "checks", "hints", "solutions read", "minutes")
    screen.result(
        {"passed": done, "exercises": every, "chapters": rows},
        table(header, [tuple(row.values()) for row in rows]),
        f"\n{done} of {every} passed.",
    )
    return 0


def hint(screen: Screen, workshop: Workshop, chosen: Exercise) -> int:
    count = workshop.hint(chosen)
    hints = [{"stage": HINT_STAGES[i], "text": chosen.hints[i]} for i in range(count)]
    left = len(chosen.hints) - count
    shown = [f"{number}. {one['stage']}: {plain(one['text'])}" for number, one in enumerate(hints, 1)]
    screen.result({"name": chosen.name, "hints": hints, "left": left}, *shown)
    if not left:
        screen.say("That is the last one. If it is not enough:  nano-llama learn solution", style="dim")
    return 0


def solution(screen: Screen, workshop: Workshop, chosen: Exercise) -> int:
    marked = workshop.open_solution(chosen)
    screen.result({"name": chosen.name, "solution": chosen.solution, "before_success": marked}, chosen.solution)
    if marked:
        screen.say("Noted: read before yours was passed.", style="dim")
    return 0


def check(screen: Screen, workshop: Workshop, chosen: Exercise, watch: bool, seed: int | None) -> int:
    file = workshop.file(chosen)
    while True:
        if not file.is_file():
            raise UserError(f"There is no {file} yet.", hint=f"Begin with  nano-llama learn goto {chosen.name}")
        saved = file.stat().st_mtime_ns
        verdict = check_once(screen, workshop, chosen, file, seed)
        if verdict.passed or not watch:
            return 0 if verdict.passed else 1
        screen.say("Waiting for the file to be saved. Ctrl-C ends.", style="dim")
        while not file.is_file() or file.stat().st_mtime_ns == saved:
            time.sleep(WATCH_SECONDS)


def check_once(screen: Screen, workshop: Workshop, chosen: Exercise, file: Path, seed: int | None) -> Verdict:
    seed = int(time.time()) % 100_000 if seed is None else seed

    titles = _titles(chosen)

    def passed(stage: str, count: int) -> None:
        if count or stage == "imports":
            screen.say(f"  passed  {titles[stage]}", style="dim")

    screen.say(f"{file}", whole_lines=True)
    if chosen.training_seconds:
        screen.say("  The last part is a training run of two minutes.", style="dim")
    verdict = check_file(chosen, file, seed, passed)
    workshop.checked(chosen, verdict.passed)
    data = {
        "name": chosen.name,
        "file": file,
        **verdict.to_json(),
        "seed": seed,
        "hints": workshop.facts(chosen)["hints"],
    }
    screen.result(data, *(_success(chosen) if verdict.passed else _failure(chosen, verdict, seed)))
    if verdict.passed:
        screen.say("Ours:  nano-llama learn solution      On:  nano-llama learn next", style="dim", whole_lines=True)
    return verdict


def _titles(chosen: Exercise) -> dict[str, str]:
    return STAGE_TITLES | (TEST_TITLES if chosen.kind == "M" else {})


def _success(chosen: Exercise) -> list[Any]:
    return [f"{chosen.name}: public checks passed."]


def _failure(chosen: Exercise, verdict: Verdict, seed: int) -> list[Any]:
    """The verdict as lines: what was called, what came, what that usually means, how to repeat it."""
    title = _titles(chosen)[verdict.stage or STAGES[0]]
    lines = [f"  failed  {title}{': ' + verdict.case if verdict.case else ''}", "", verdict.message]
    if verdict.where:
        lines.append(f"  {verdict.where}")
    if verdict.expected is not None:
        at = f" at [{', '.join(map(str, verdict.index))}]" if verdict.index else ""
        lines += [f"  expected{at}: {verdict.expected}", f"  found{at}:    {verdict.found}"]
    if verdict.inputs:
        lines += ["", "Called with", *(f"  {line}" for line in verdict.inputs.splitlines())]
    if verdict.says:
        lines += ["", f"What this usually means: {verdict.says}"]
    if verdict.printed:
        lines += ["", "Your code printed", *(f"  {line}" for line in verdict.printed.splitlines())]
    if verdict.seed:
        lines += ["", f"Repeat it:  nano-llama learn check {chosen.name} --seed {seed}"]
    return ["\n".join(lines)]


def serve_book(screen: Screen, site: Path, port: int) -> int:
    """Serve until Ctrl-C. The address is the result: it holds the token."""
    from nano_llama.learn.serve import BookServer

    with BookServer(site, port) as server:
        screen.result({"url": server.url, "book": site}, f"The book, with cells that run:  {server.url}")
        sys.stdout.flush()
        screen.say("Whoever has this address can run code as you. Ctrl-C ends.", style="dim")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


def dev(screen: Screen, action: str, name: str) -> int:
    """For authors: `dev check [NAME]` holds the exercises to their promises; `dev solution NAME` writes a reference."""
    if action == "solution" and name:
        chosen = exercise(name)
        file = Workshop().write_solution(chosen)
        screen.result({"name": chosen.name, "file": file}, f"{file} is the reference now.")
        return 0
    if action != "check":
        raise UserError(f"There is no  learn dev {action}".rstrip() + ".", hint="dev check [NAME], dev solution NAME")
    from nano_llama.learn.dev_check import check_exercises

    chosen_ones = [exercise(name)] if name else list(exercises())
    report = check_exercises(chosen_ones, lambda text: screen.say(text, style="dim"))
    screen.result(report.to_json(), *report.lines())
    return 0 if report.good else 1
