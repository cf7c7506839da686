"""However a text is cut into tokens: what goes out ends before the stop string, and nothing of that goes out."""

from itertools import pairwise, product

from nano_llama.vol3_engine.text import TextStream


class Pieces:
    """A decoder whose tokens are their own texts."""

    def push(self, token):
        return token

    def finish(self):
        return ""


def all_cuts(text):
    """Every way to cut it into pieces."""
    for borders in product((False, True), repeat=len(text) - 1):
        places = [0, *(i for i, border in enumerate(borders, start=1) if border), len(text)]
        yield [text[a:b] for a, b in pairwise(places)]


def sent(pieces, stop):
    """What goes out piece by piece, and the stop string that ended it."""
    stream, out = TextStream(Pieces(), stop), []
    for piece in pieces:
        out.append(stream.push(piece))
        if stream.stopped_by is not None:
            return out, stream.stopped_by
    return [*out, stream.finish()], None


def test_it_ends_before_the_stop_string():
    for text, stop in (("a own fox", ("own fox",)), ("xababac", ("abac",)), ("owner of", ("own fox", "q"))):
        expected = min((text[: text.find(one)] for one in stop if one in text), default=text, key=len)
        for pieces in all_cuts(text):
            out, stopped_by = sent(pieces, stop)
            assert "".join(out) == expected, (
                f"tokens {pieces}, stop {stop}: {''.join(out)!r} went out, not {expected!r}"
            )
            assert (stopped_by is not None) == (expected != text), f"tokens {pieces}, stop {stop}: {stopped_by}"


def test_what_is_certain_goes_out_at_once():
    out, _ = sent([" br", "own", " dog"], ("own fox",))
    assert out[:3] == [" br", "", "own dog"], f"with stop 'own fox' the tokens ' br', 'own', ' dog' send {out[:3]}"
