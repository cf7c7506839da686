"""`nano-llama museum`: real faults of this field, planted into this package: locate, fix and trap them.

The learner's files and what happened so far are in ./museum (learn/museum/visit.py); what runs them is a process of its
own (learn/museum/grading.py). Tests: tests/cli/test_museum.py.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from nano_llama.cli.common import Output, Screen, table
from nano_llama.core.errors import UserError
from nano_llama.learn.museum.catalogue import CAUSES, Room, read_source, room, rooms, source_folders
from nano_llama.learn.museum.grading import Outcome, check_fix, check_trap, is_the_line
from nano_llama.learn.museum.visit import Visit
from nano_llama.learn.plain_text import wrapped

UNCHANGED = "The room's files are as you got them."

Action = Literal["list", "enter", "answer", "check", "page", "dev"]


def run(
    action: Action = "list",
    number: Annotated[str, Parameter(show_default=False)] = "",
    number_for_dev: Annotated[str, Parameter(show=False)] = "",
    /,
    *,
    line: Annotated[str, Parameter(show_default=False)] = "",
    cause: Annotated[str, Parameter(show_default=False)] = "",
    output: Output | None = None,
) -> int:
    """Find real faults in this package: enter a room, read what its user reported, and locate, fix and trap the fault.

    enter writes a room's files and tells the symptom. answer locates: the line, then which of five causes; three tries.
    check runs hidden tests on your repair, and your own test_room.py on sound and on faulty code. page tells the
    history of a room that is fixed. dev check, dev pack [NUMBER]: for authors.

    Parameters
    ----------
    action
        What to do.
    number
        The room's number.
    line
        With answer: where the fault is, FILE:LINE.
    cause
        With answer: what it is, a letter.
    """
    screen = Screen(output)
    if number_for_dev and action != "dev":
        raise UserError(f"What is {number_for_dev!r}?", hint=f"museum {action} takes one number.")
    if (line or cause) and action != "answer":
        raise UserError("--line and --cause belong to answer.", hint="nano-llama museum answer 2 --line FILE:LINE")
    if action == "dev":
        return dev(screen, number, number_for_dev)
    if action == "list":
        if number:
            raise UserError(f"museum list takes no number, not {number!r}.", hint=f"nano-llama museum enter {number}")
        return show_list(screen, Visit())
    if not number:
        raise UserError("Which room?", hint=f"nano-llama museum {action} NUMBER; see  nano-llama museum list")
    visit, chosen = Visit(), room(_number(number))
    if action == "enter":
        return enter(screen, visit, chosen)
    visit.require_entered(chosen)
    if action == "answer":
        return answer(screen, visit, chosen, line, cause.lower())
    actions: dict[str, Callable[[Screen, Visit, Room], int]] = {"check": check, "page": page}
    return actions[action](screen, visit, chosen)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{text!r} is not a room's number.", hint="See  nano-llama museum list")
    return int(text)


def show_list(screen: Screen, visit: Visit) -> int:
    listed = [
        {"number": one.number, "title": one.title, "stars": one.stars, "state": visit.state(one)} for one in rooms()
    ]
    rows = [
        (one.number, stars_text(one), "" if visit.state(one) == "new" else visit.state(one), one.title)
        for one in rooms()
    ]
    screen.result({"rooms": listed}, table(("room", "stars", "state", "title"), rows))
    screen.say("\nInto one:  nano-llama museum enter NUMBER", style="dim")
    return 0


def stars_text(one: Room) -> str:
    return "●" * one.stars + "○" * (3 - one.stars)


def enter(screen: Screen, visit: Visit, chosen: Room) -> int:
    created = visit.enter(chosen)
    folder = visit.folder(chosen)
    data = {
        "number": chosen.number,
        "title": chosen.title,
        "stars": chosen.stars,
        "state": visit.state(chosen),
        "symptom": chosen.symptom,
        "folder": folder,
        "files": [str(folder / "nano_llama" / file) for file in chosen.files],
        "test": visit.test_file(chosen),
        "tries_left": visit.tries_left(chosen),
        "created": created,
    }
    screen.result(
        data,
        f"Room {chosen.number}: {chosen.title}  {stars_text(chosen)}\n",
        wrapped(chosen.symptom),
        f"\nIts files, one of them with the fault, in {folder}/nano_llama:",
        *(f"  {file}" for file in chosen.files),
    )
    if not created:
        screen.say("They are as you left them. To begin again, remove the folder first.", style="dim")
    tries = {0: "no try is left", 1: "1 try"}.get(visit.tries_left(chosen), f"{visit.tries_left(chosen)} tries")
    for text in (
        f"\nWithin {folder}, Python imports these files in place of the package's:  cd {folder}; python",
        f"Locate:  nano-llama museum answer {chosen.number} --line FILE:LINE      ({tries})",
        f"Fix:     change the file, then  nano-llama museum check {chosen.number}",
        f"Trap:    write {visit.test_file(chosen)}, then  nano-llama museum check {chosen.number}",
    ):
        screen.say(text, style="dim", whole_lines=True)
    return 0


def answer(screen: Screen, visit: Visit, chosen: Room, line: str, cause: str) -> int:
    """A wrong line or a wrong cause uses up a try; the right line alone uses none, and shows the causes."""
    asked = re.fullmatch(r"(.+):(\d+)", line)
    if not asked:
        given = f"--line {line} is not FILE:LINE." if line else "Where is the fault?"
        raise UserError(given, hint=f"nano-llama museum answer {chosen.number} --line {chosen.files[0]}:10")
    if cause and cause not in CAUSES:
        raise UserError(
            f"--cause {cause} is none of {', '.join(CAUSES)}.", hint="The right line shows them; leave out --cause."
        )
    file, text = visit.file_of(chosen, asked[1])
    if not 1 <= int(asked[2]) <= len(text.splitlines()):
        raise UserError(f"{file} has lines 1 to {len(text.splitlines())}, not {asked[2]}.")
    located = "located" in visit.facts(chosen)
    if visit.tries_left(chosen) == 0 and not located:
        raise UserError(
            f"The three tries of room {chosen.number} are used.",
            hint=f"Fix it, which has no limit:  nano-llama museum check {chosen.number}",
        )
    right_line = is_the_line(chosen, file, int(asked[2]), text)
    right_cause = cause == chosen.cause if right_line and cause else None
    if not located and (not right_line or right_cause is False):
        visit.use_try(chosen)
    if right_cause:
        visit.reach(chosen, "located")
    causes = chosen.causes_shown() if right_line else None
    left = visit.tries_left(chosen)
    data = {
        "number": chosen.number,
        "right_line": right_line,
        "right_cause": right_cause,
        "causes": causes,
        "tries_left": left,
        "state": visit.state(chosen),
    }
    screen.result(data, *_answered(chosen, line, causes, right_cause, left))
    return 0 if right_line and right_cause is not False else 1


def _answered(chosen: Room, line: str, causes: dict[str, str] | None, right_cause: bool | None, left: int) -> list[str]:
    tries = f"{left} {'try is' if left == 1 else 'tries are'} left."
    if causes is None:
        return [f"The fault is not there. {tries}"]
    if right_cause:
        return ["That is the line, and that is the cause: located.", f"Next:  nano-llama museum check {chosen.number}"]
    head = (
        "That is the line, but that is not the cause." if right_cause is False else "That is the line. What is wrong?"
    )
    shown = [f"  {letter}  {text}" for letter, text in causes.items()]
    return [f"{head} {tries}", *shown, f"nano-llama museum answer {chosen.number} --line {line} --cause LETTER"]


def check(screen: Screen, visit: Visit, chosen: Room) -> int:
    """The repair, and the learner's test where it is written. 0 where all that was checked holds."""
    visit.require_files(chosen)
    # Of files as they were entered all is known; and what a hidden test says of them would help to locate the fault.
    fix = Outcome(False, message=UNCHANGED) if visit.is_unchanged(chosen) else check_fix(chosen, visit.folder(chosen))
    visit.checked(chosen)
    if fix.passed:
        visit.reach(chosen, "fixed")
    lines = _about_fix(fix)
    trap: dict[str, Any] | None = None
    good = fix.passed
    if visit.is_written(chosen):
        where, outcome = check_trap(chosen, visit.test_file(chosen))
        if where is None:
            visit.reach(chosen, "trapped")
        trap = {"passed": where is None, "where": where, **outcome.to_json()} | {"passed": where is None}
        lines += _about_trap(where, outcome)
        good = good and where is None
    data = {"number": chosen.number, "fix": fix.to_json(), "trap": trap, "state": visit.state(chosen)}
    screen.result(data, *lines)
    if fix.passed:
        screen.say(f"Its history:  nano-llama museum page {chosen.number}", style="dim", whole_lines=True)
    if trap is None:
        screen.say(f"Not written yet: your test, {visit.test_file(chosen)}", style="dim", whole_lines=True)
    return 0 if good else 1


def _about_fix(fix: Outcome) -> list[str]:
    if fix.passed:
        return ["fix: passed. The hidden tests pass on your files."]
    test = f"{fix.failed}: " if fix.failed else ""
    return [f"fix: not yet. {test}{fix.message}", *_printed(fix)]


def _about_trap(where: str | None, outcome: Outcome) -> list[str]:
    at = f" (line {outcome.line})" if outcome.line else ""
    said = {
        None: "trap: passed. Your test passes on the sound package, and fails on the fault and on another of its kind.",
        "sound": f"trap: not yet. It fails on the sound package: {outcome.message}{at}",
        "plant": "trap: not yet. It passes on this room's fault.",
        "variant": "trap: not yet. It fails on this room's fault, but passes on another of its kind. What must hold?",
    }
    return [said[where], *(_printed(outcome) if where == "sound" else [])]


def _printed(outcome: Outcome) -> list[str]:
    return ["It printed", *(f"  {line}" for line in outcome.printed.splitlines())] if outcome.printed else []


def page(screen: Screen, visit: Visit, chosen: Room) -> int:
    """The room's page, and our test where the learner's holds."""
    facts = visit.facts(chosen)
    if "fixed" not in facts:
        raise UserError(
            f"The page of room {chosen.number} opens when it is fixed.",
            hint=f"nano-llama museum check {chosen.number}",
        )
    test = chosen.detector if "trapped" in facts else None
    data = {"number": chosen.number, "page": chosen.page, "history": chosen.history, "test": test}
    shown = [f"Room {chosen.number}: {chosen.title}\n", wrapped(chosen.page.replace("**", "")), ""]
    shown += [f"See {url}" for url in chosen.history]
    screen.result(data, *shown, *(["\nOur test:\n", test] if test else []))
    if test is None:
        screen.say("\nOur test is shown when yours has passed.", style="dim")
    return 0


def dev(screen: Screen, action: str, number: str) -> int:
    """For authors, in a clone: `dev check [N]` holds rooms to their promises; `dev pack [N]` writes their archives."""
    if action not in ("check", "pack"):
        raise UserError(f"There is no  museum dev {action}".rstrip() + ".", hint="dev check [N], dev pack [N]")
    wanted = _number(number) if number else None
    folders = [folder for folder in source_folders() if wanted in (None, int(folder.name[:2]))]
    if not folders:
        raise UserError("There are no such rooms in dev/museum.", hint="This is for authors, in a clone.")
    if action == "pack":
        from nano_llama.learn.museum.catalogue import pack

        files = [pack(folder) for folder in folders]
        screen.result({"packed": files}, *map(str, files))
        return 0
    from nano_llama.learn.museum.dev_check import check_room

    found: dict[str, list[str]] = {}
    for folder in folders:
        faults, seconds = check_room(read_source(folder))
        screen.say(f"{folder.name}: {len(faults)} faults, detector {seconds:.1f} s", style="dim")
        found |= {folder.name: faults} if faults else {}
    lines = [f"fault: {name}: {text}" for name, faults in found.items() for text in faults]
    good = "Good." if not found else "Not good."
    screen.result({"good": not found, "rooms": len(folders), "faults": found}, *lines, f"{len(folders)} rooms. {good}")
    return 0 if not found else 1
