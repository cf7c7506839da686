"""The play: the same for the same seed, and its probability is that of the text."""

import math
import re

from nano_llama.learn import play as rules
from nano_llama.learn.play import play


def test_a_seed_is_a_play():
    assert play(3, 20) == play(3, 20)
    assert play(3, 20)[0] != play(4, 20)[0]
    assert play(3, 30)[0].startswith(play(3, 20)[0])


def test_a_speech_can_be_read_back_so_its_probability_is_that_of_its_choices():
    """By a pattern of its own: every speech is one way of choosing, and who is spoken to answers."""
    verbs = "|".join(rules.VERBS)
    clause = (
        rf"(?:{'|'.join(f'{subject} (?:{verbs}){ending}' for subject, ending in rules.SUBJECTS)})"
        rf" (?:{'|'.join(rules.OWNERS)}) (?:{'|'.join(rules.QUALITIES)}) (?:{'|'.join(rules.THINGS)})"
    )
    speech = re.compile(
        rf"(?P<who>[A-Z]+):\n(?:{'|'.join(rules.OPENINGS)}){clause}(?:{'|'.join(rules.PAUSES)}){clause}, (?P<to>\w+)\.",
        re.IGNORECASE,
    )
    text, nats = play(0, 50)
    speeches = text.strip().split("\n\n")
    read = [speech.fullmatch(one) for one in speeches]
    assert len(speeches) == 50 and all(read)
    assert [one["to"].upper() for one in read[:-1]] == [one["who"] for one in read[1:]]
    of_clause = sum(
        math.log(len(among)) for among in (rules.SUBJECTS, rules.VERBS, rules.OWNERS, rules.QUALITIES, rules.THINGS)
    )
    each = math.log(7) + math.log(len(rules.OPENINGS)) + 2 * of_clause + math.log(len(rules.PAUSES))
    assert math.isclose(nats, math.log(len(rules.CAST)) + 50 * each)


def test_different_choices_give_different_clauses():
    clauses = {f"{s} {verb}{ending}" for s, ending in rules.SUBJECTS for verb in rules.VERBS}
    assert len(clauses) == len(rules.SUBJECTS) * len(rules.VERBS)
