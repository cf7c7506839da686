"""The museum: real faults of this field, planted into this package, to be located, fixed and trapped.

    from nano_llama.learn.museum import room, rooms
    for one in rooms():
        print(one.number, one.stars, one.title)

`nano-llama museum` (cli/museum.py) is the command over it. A room is a folder below dev/museum, packed into
rooms/NN.zip so that looking at the installed package gives nothing away:

    room.toml      title, stars, symptom, files, causes, history, and three kinds of edits: plant, variant, wrong_fix
    detector.py    test_*() functions: they pass on the sound package, and fail on each kind of edit
    page.md        what it was, how it was found, what sees it: shown when the room is fixed

Tests: tests/learn/museum/test_catalogue.py.
"""

from nano_llama.learn.museum.catalogue import Room, room, rooms

__all__ = ["Room", "room", "rooms"]
