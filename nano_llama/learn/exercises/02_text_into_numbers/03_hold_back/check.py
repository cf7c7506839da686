import codecs

from nano_llama.learn.checks import function_cases

LETTERS = "aé€🦙zñ漢🎈"
BORDERS = (0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF)  # the first and last characters of two, three and four bytes


def make(rng, characters, cut):
    text = "".join(LETTERS[i] for i in rng.integers(0, len(LETTERS), characters)).encode()
    return {"data": text[: max(len(text) - cut, 0)]}


def one_letter(rng, bytes_of, cut):
    return {"data": LETTERS[bytes_of - 1].encode()[: bytes_of - cut]}


def by_codec(data):
    decoder = codecs.getincrementaldecoder("utf-8")()
    decoder.decode(data)
    return len(decoder.getstate()[0])


def cases(seed):
    small = [
        {"bytes_of": n, "cut": cut}
        for n, cut in ((1, 0), (2, 1), (2, 0), (3, 2), (3, 1), (4, 3), (4, 1), (4, 2), (4, 0))
    ]
    edges = {"no bytes": {"data": b""}}
    edges |= {f"'a' and the first of {letter!r}": {"data": b"a" + letter.encode()[:1]} for letter in "é€🦙"}
    edges |= {f"character {code:#x} without its end": {"data": chr(code).encode()[:-1]} for code in BORDERS}
    edges |= {f"character {code:#x}": {"data": chr(code).encode()} for code in BORDERS}
    yield from function_cases(
        "hold_back", one_letter, small=small, random=[], seed=seed, expected=by_codec, edges=edges
    )
    random = [{"characters": 9, "cut": cut} for cut in range(6)]
    yield from function_cases("hold_back", make, small=[], random=random, seed=seed, expected=by_codec)
