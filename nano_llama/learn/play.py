"""A play without an end, written by chance: text to train on that needs no download and whose true loss is known.

Every speech is drawn by rules, so the probability of a whole play can be computed, and with it the loss that no model
gets below. Seeds differ in all but the rules. Tests: tests/learn/test_play.py.

    text, nats = play(seed=0, speeches=1000)
    nats / len(text)                          # the floor, nats per character
"""

import math
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

CAST = ("ANSELM", "BEATRICE", "CORIN", "DIANA", "EDGAR", "FLAVIA", "GASPAR", "HELENA")
OPENINGS = ("Alas, ", "Come, ", "Good sir, ", "Hark, ", "I pray you, ", "Nay, ", "O, ", "")
# Who does something, with the ending of the word behind it, as one choice.
SUBJECTS = (("I", ""), ("thou", "est"), ("he", "eth"), ("she", "eth"), ("the king", "eth"), ("we", ""), ("they", ""))
VERBS = ("answer", "burn", "command", "cool", "drown", "fear", "guard", "hear", "kill", "know", "mend", "mourn",
         "pardon", "quell", "remember", "seek", "spurn", "want", "watch", "yield")  # fmt: skip
OWNERS = ("a", "her", "his", "my", "no", "our", "that", "the", "this", "thy")
QUALITIES = ("bitter", "bold", "crooked", "faithful", "foolish", "gentle", "golden", "heavy", "holy", "idle", "loyal",
             "merry", "noble", "pale", "proud", "rude", "silver", "sweet", "tender", "weary")  # fmt: skip
THINGS = ("battle", "brother", "crown", "daughter", "dream", "fortune", "garden", "grave", "heart", "jewel", "letter",
          "lion", "moon", "night", "promise", "quarrel", "river", "rose", "shadow", "sorrow", "storm", "sword",
          "tongue", "winter")  # fmt: skip
PAUSES = (", ", "; and ", ", for ")


def play(seed: int, speeches: int) -> tuple[str, float]:
    """A play of so many speeches, and -log of its probability in nats. Who is spoken to answers."""
    rng, nats = random.Random(seed), 0.0

    def choose(among: Sequence[T]) -> T:
        """All are equally likely; different choices give different texts."""
        nonlocal nats
        nats += math.log(len(among))
        return rng.choice(among)

    def clause() -> str:
        subject, ending = choose(SUBJECTS)
        return f"{subject} {choose(VERBS)}{ending} {choose(OWNERS)} {choose(QUALITIES)} {choose(THINGS)}"

    written, speaker = [], choose(CAST)
    for _ in range(speeches):
        other = choose([name for name in CAST if name != speaker])
        line = f"{choose(OPENINGS)}{clause()}{choose(PAUSES)}{clause()}, {other.title()}."
        written.append(f"{speaker}:\n{line[0].upper()}{line[1:]}\n\n")
        speaker = other
    return "".join(written), nats
