"""Scenes of shapes: what is said of them is what is painted, and held-out combinations leave nothing else out."""

from collections import Counter

import numpy as np

from nano_llama.data.vqa import shape_tasks
from nano_llama.data.vqa.questions import COLOURS, SHAPE_NAMES
from nano_llama.data.vqa.shape_tasks import SHAPE_TASKS, is_held_out_count, is_held_out_pair, is_held_out_place


def painted(scene, monkeypatch):
    """(shape, x, y, radius, colour's name) of each shape that the scene paints."""
    found = []

    def record(canvas, name, x, y, radius, turn, colour):
        nearest = min(COLOURS, key=lambda c: np.abs(np.subtract(COLOURS[c], colour)).sum())
        found.append((name, x, y, radius, nearest))

    monkeypatch.setattr(shape_tasks, "draw_shape", record)
    scene.paint(None, np.random.default_rng(0))
    return found


def scenes(task, count=300):
    rng = np.random.default_rng(0)
    return [SHAPE_TASKS[task].draw(rng) for _ in range(count)]


def test_one_shape(monkeypatch):
    for scene in scenes("shape"):
        [(shape, x, y, radius, colour)] = painted(scene, monkeypatch)
        answers = {question.kind: question.answer for question in scene.questions}
        side, height = "left" if x < 32 else "right", "top" if y < 32 else "bottom"
        assert answers == {"colour": colour, "shape": shape, "side": side, "height": height}
        assert all(radius < c < 64 - radius and abs(c - 32) >= 5 for c in (x, y))


def test_two_shapes(monkeypatch):
    for scene in scenes("relation"):
        places = {shape: (x, y, colour) for shape, x, y, _, colour in painted(scene, monkeypatch)}
        relation, *colours = scene.questions
        shape, other = (word for word in relation.text.rstrip("?").split() if word in places)
        axis = 0 if relation.kind == "left_right" else 1
        first = places[shape][axis] < places[other][axis]
        assert relation.answer == (("left", "above") if first else ("right", "below"))[axis]
        assert {q.text: q.answer for q in colours} == {f"What colour is the {s}?": c for s, (*_, c) in places.items()}


def test_several_shapes(monkeypatch):
    for scene in scenes("count"):
        found = painted(scene, monkeypatch)
        count, of_colour = scene.questions
        numbers = ["zero", "one", "two", "three", "four", "five", "six"]
        assert numbers.index(count.answer) == len(found)
        asked = of_colour.text.split()[2]
        assert numbers.index(of_colour.answer) == sum(colour == asked for *_, colour in found)
        for i, (_, x, y, radius, _) in enumerate(found):
            assert radius < x < 64 - radius and radius < y < 64 - radius
            assert all(np.hypot(x - u, y - v) > radius + r for _, u, v, r, _ in found[:i]), "they touch"


def test_each_part_occurs_with_many_others():
    pairs = [(c, s) for c in range(8) for s in range(8) if is_held_out_pair(c, s)]
    assert Counter(c for c, _ in pairs) == Counter(s for _, s in pairs) == Counter(range(8))
    quarters = [(s, r, b) for s in range(8) for r in (False, True) for b in (False, True) if is_held_out_place(s, r, b)]
    assert Counter(s for s, *_ in quarters) == Counter(range(8))
    assert set(Counter((right, bottom) for _, right, bottom in quarters).values()) == {2}
    counts = [(s, n) for s in range(8) for n in range(1, 7) if is_held_out_count(s, n)]
    assert Counter(s for s, _ in counts) == Counter(range(8)) and {n for _, n in counts} == set(range(1, 7))


def test_training_shows_no_held_out_pair_anywhere(monkeypatch):
    names = list(COLOURS)
    for task in SHAPE_TASKS:
        for scene in scenes(task, 400):
            if scene.group == "seen" or task != "shape":
                for shape, *_, colour in painted(scene, monkeypatch):
                    assert not is_held_out_pair(names.index(colour), SHAPE_NAMES.index(shape)), task


def test_relations_that_are_held_out_do_not_depend_on_the_order():
    held_out = [(a, b) for a in range(8) for b in range(8) if a != b and shape_tasks.is_held_out_relation(a, b)]
    assert all((b, a) in held_out for a, b in held_out)
    assert Counter(a for a, _ in held_out) == Counter({a: 2 for a in range(8)})
