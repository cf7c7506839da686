import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, n, letters, pieces):
    alphabet = "abcd"[:letters]
    text = "".join(rng.choice(list(alphabet), n))
    logp = {letter: -float(np.round(rng.uniform(2, 4), 3)) for letter in alphabet}
    source = "".join(rng.choice(list(alphabet), 300))
    while len(logp) < letters + pieces:
        at, size = int(rng.integers(290)), int(rng.integers(2, 5))
        logp[source[at : at + size]] = -float(np.round(rng.uniform(2, 9), 3))
    return {"text": text, "logp": logp}


EXAMPLES = (
    ("a", {"a": -1.0}),
    ("abcde", {"a": -1.0, "b": -2.0, "c": -4.0, "d": -2.0, "e": -2.0, "ab": -1.2, "abc": -3.0, "cde": -1.0}),
    ("abc", {"a": -1.0, "b": -1.0, "c": -1.0, "ab": -4.0, "bc": -1.5}),
    ("aaa", {"a": -2.0, "aa": -3.0}),
)


def an_example(rng, example):
    text, logp = EXAMPLES[example]
    return {"text": text, "logp": logp}


def best_sum(text, logp):
    """By trying every cut of a short text."""
    if not text:
        return 0.0
    sizes = [size for size in range(1, len(text) + 1) if text[:size] in logp]
    return max(logp[text[:size]] + best_sum(text[size:], logp) for size in sizes)


def best_sum_of_long(text, logp):
    """From the end: the best sum of what follows each place."""
    best = [0.0]
    for start in reversed(range(len(text))):
        sizes = [size for size in range(1, min(10, len(text) - start) + 1) if text[start : start + size] in logp]
        best.insert(0, max(logp[text[start : start + size]] + best[size - 1] for size in sizes))
    return best[0]


def holds(pieces, text, logp):
    if not all(piece in logp for piece in pieces):
        return f"Not a piece: {next(piece for piece in pieces if piece not in logp)!r}."
    if "".join(pieces) != text:
        return f"Joined, your pieces are not the text: {pieces!r:.200}."
    found, best = sum(logp[piece] for piece in pieces), (best_sum if len(text) < 15 else best_sum_of_long)(text, logp)
    if found < best - 1e-9:
        return f"There is a likelier cut: your sum is {found:.6g}, and {best:.6g} is possible. {pieces!r:.200}"
    return None


def cases(seed):
    def some(make, **kinds):
        return function_cases("best_pieces", make, seed=seed, holds=holds, **{"small": [], "random": [], **kinds})

    long = make(np.random.default_rng(5), n=2000, letters=3, pieces=30)
    random = [{"n": n, "letters": 2, "pieces": 8} for n in (8, 10, 12)] + [{"n": 12, "letters": 3, "pieces": 14}]
    yield from some(an_example, small=[{"example": number} for number in range(len(EXAMPLES))])
    yield from some(make, random=random)
    yield from some(make, edges={"an empty text": {"text": "", "logp": {"a": -1.0}}, "2,000 characters": long})
