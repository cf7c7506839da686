"""Do the rooms keep their promises? For their authors: seconds a room.

Every edit's old text stands once in the package, in a file that the learner gets. The detector passes on the sound
files, in under 10 seconds of processor time, and fails on the fault, on the variant and on the wrong fix: by a test,
not by breaking.
Tests: tests/learn/museum/test_dev_check.py, and of every room tests/learn/museum/test_rooms.py.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from nano_llama.learn.museum.catalogue import CAUSES, Room
from nano_llama.learn.museum.grading import Outcome, run_detector
from nano_llama.learn.museum.trees import TextIsGone, edited, write_tree

DETECTOR_SECONDS = 10.0  # of processor time
PATIENCE = 300.0  # seconds: the machine may be busy


def about_texts(room: Room) -> list[str]:
    """What can be seen without running anything."""
    faults = []
    if not (1 <= room.stars <= 3 and room.title and room.symptom and room.page):
        faults.append("stars, title, symptom or page are not right")
    if len(set(room.causes)) != len(CAUSES):
        faults.append(f"{len(CAUSES)} causes are needed, the right one first")
    for kind, edits in (("plant", room.plant), ("variant", room.variant), ("wrong_fix", room.wrong_fix)):
        outside = {edit.file for edit in edits} - set(room.files)
        if not edits or outside:
            faults.append(f"{kind}: no edits" if not edits else f"{kind}: {min(outside)} is not in files")
        try:
            if edited(room.files, edits) == edited(room.files):
                faults.append(f"{kind} changes nothing")
        except TextIsGone as error:
            faults.append(f"{kind}: {error}")
    if room.plant in (room.variant, room.wrong_fix):
        faults.append("the variant and the wrong fix are other edits than the plant")
    if any(file.endswith("__init__.py") for file in room.files):
        faults.append("an __init__.py cannot be planted")
    names = [Path(file).name.removesuffix(".py") for file in {edit.file for edit in room.plant}]
    if any(name in room.symptom + room.title for name in names if "_" in name):
        faults.append("the symptom names a file of the fault")
    return faults


def check_room(room: Room) -> tuple[list[str], float]:
    """-> what is not as it should be, and the seconds that the detector takes on the sound files."""
    faults = about_texts(room)
    if faults:
        return faults, 0.0
    trees = {"plant": room.plant, "variant": room.variant, "wrong_fix": room.wrong_fix}
    outcome = _detect(room, edited(room.files))
    seconds = outcome.seconds
    if not outcome.passed:
        faults.append(f"the detector fails on sound files: {outcome.failed}: {outcome.message}")
    if seconds > DETECTOR_SECONDS:
        faults.append(f"the detector takes {seconds:.1f} s of processor time")
    for kind, edits in trees.items():
        outcome = _detect(room, edited(room.files, edits))
        if outcome.passed:
            faults.append(f"the detector passes on the {kind}")
        elif outcome.broken:
            faults.append(f"the detector breaks on the {kind}: {outcome.message}")
    return faults, seconds


def _detect(room: Room, texts: dict[str, str]) -> Outcome:
    with TemporaryDirectory() as folder:
        write_tree(Path(folder), texts)
        return run_detector(room, Path(folder), PATIENCE)
