"""Learning by writing: exercises with stubs, checks and hints, one set to each chapter of the book.

    from nano_llama.learn import exercises
    for exercise in exercises():
        print(exercise.name, exercise.stars, exercise.title)

`nano-llama learn` (cli/learn.py) is the command over this room. An exercise is a folder below exercises/:

    exercise.toml    title, stars, minutes, kind, statement, modules it may import, three hints
    stub.py          what the learner starts from: signature and shapes
    solution.py      the reference
    check.py         cases(seed): what is called, in stages (checks.py)
    wrong/*.py       wrong solutions; the first line names the stage that rejects it, and what its author is told

Tests: tests/learn/test_catalogue.py.
"""

from nano_llama.learn.catalogue import Exercise, exercise, exercises

__all__ = ["Exercise", "exercise", "exercises"]
