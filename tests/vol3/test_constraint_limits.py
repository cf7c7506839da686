"""Constraints that are wrong, unsupported or hostile: each ends within limits in our error, and the next one works."""

import asyncio
import resource
import threading
import time

import pytest

from helpers.constrained import byte_level, characters, noise_llm
from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine import constraints
from nano_llama.vol3_engine.async_engine import AsyncEngine
from nano_llama.vol3_engine.constraints import ConstraintCompiler


@pytest.fixture(scope="module")
def compiler():
    tokenizer = byte_level()
    return ConstraintCompiler(tokenizer, tokenizer.vocab_size, tokenizer.stop_ids)


def compiled(compiler, structured_outputs):
    return compiler.compile(SamplingParams(structured_outputs=structured_outputs).structured_outputs)


def chain_of_rules(form, count):
    name = form[0]
    rules = [f"start: {name}0", *(form.format(i, i + 1) for i in range(count)), f'{name}{count}: "a"']
    return "\n".join(rules)


def nested(depth):
    schema = {"type": "integer"}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def chain_of_references(count):
    steps = {f"d{i}": {"properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(count)}
    return {"$defs": {**steps, f"d{count}": {}}, "$ref": "#/$defs/d0"}


WRONG = {
    "a type that is none": ({"json": {"type": "strin"}}, "Invalid type: strin"),
    "a remote reference": ({"json": {"$ref": "http://localhost:1/a.json"}}, "localhost:1/a.json"),
    "a reference to nothing": ({"json": {"$ref": "#/$defs/no"}}, r"/\$defs/no' does not exist"),
    "not": ({"json": {"not": {"type": "null"}}}, 'Unimplemented keys: ."not"'),
    "if": ({"json": {"if": {}, "then": {}}}, "Unimplemented keys"),
    "uniqueItems": ({"json": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
    "an unknown format": ({"json": {"type": "string", "format": "colour"}}, "Unknown format: colour"),
    "a pattern that is no expression": ({"json": {"type": "string", "pattern": "(a"}}, "unclosed group"),
    "a schema that nothing satisfies": ({"json": {"type": "string", "enum": [1]}}, "Unsatisfiable"),
    "overlapping patterns": ({"json": {"patternProperties": {"a": {}, "b": {}}}}, "disjoint"),
    "a number between two of float64": ({"json": {"const": 2**53 + 1}}, "9007199254740993 is too long"),
    "a number of 17 digits": ({"json": {"const": 1.0393357757290247e67}}, "1.0393357757290247e.67 is too long"),
    "a number near infinity": ({"json": {"minimum": 10**400}}, "too large"),
    "a reference to itself": (
        {"json": {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
        "no text satisfies",
    ),
    "options that are none": ({"json": {"x-guidance": {"whitespace": 3}}}, "unknown field"),
    "options of another type": ({"json": {"x-guidance": 3}}, "x-guidance|invalid type"),
    "brackets that do not close": ({"regex": "(a"}, "unclosed group"),
    "a look ahead": ({"regex": "a(?=b)"}, "look-around"),
    "a reference back": ({"regex": r"(a)\1"}, "backreferences"),
    "half a surrogate pair": ({"choice": ["\ud800"]}, "escape"),
    "Lark with an unknown name": ({"grammar": 'start: "a" y\ny: x'}, r'at 2\(\d\): unknown name: "x"'),
    "neither Lark nor GBNF": ({"grammar": "%%%"}, "%%%"),
    "GBNF without a root": ({"grammar": 'x ::= "a"'}, "root"),
    "a special token by name": ({"grammar": 'start: "<ok>" /<a/ <|endoftext|> // <fine>'}, r"<\|endoftext\|>"),
    "a special token by number": ({"grammar": "start: <[0]>"}, r"<\[0\]>"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_in_llguidances_words(compiler, name):
    structured_outputs, message = WRONG[name]
    with pytest.raises(UserError, match=message) as caught:
        compiled(compiler, structured_outputs)
    ((kind, _),) = structured_outputs.items()
    assert caught.value.message.startswith(f"structured_outputs: the {kind} cannot be followed: ") and caught.value.hint
    assert len(caught.value.message) < 800 and "backtrace" not in caught.value.message


HOSTILE = {
    "a multiple that compiles for seconds": {"json": {"type": "integer", "multipleOf": 9_999_991}},
    "intersections and complements": {"grammar": "start: A\nA: /(.*a.{45})/ & /(.*b.{44})/ & ~/(.*c.{43})/"},
    "ten patterns at once": {"json": {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in "abcdefghij"]}},
    "a chain of rules": {"grammar": chain_of_rules("r{0}: r{1}", 9000)},
    "a chain of terminals": {"grammar": chain_of_rules("R{0}: R{1}", 9000)},
    "terminals that double": {"grammar": chain_of_rules("R{0}: R{1} R{1}", 60)},
    "a chain of references": {"json": chain_of_references(3000)},
    "an expression of brackets": {"regex": "(" * 100_000 + "a" + ")" * 100_000},
    "a grammar of brackets": {"grammar": "start: " + "(" * 50_000 + '"a"' + ")" * 50_000},
    "GBNF of brackets": {"grammar": "root ::= " + "(" * 50_000 + '"a"' + ")" * 50_000},
    "a schema of depth 300": {"json": nested(300)},
    "a product of alternatives": {
        "json": {"allOf": [{"anyOf": [{"properties": {i + j: {"maxLength": 9}}} for j in "1234"]} for i in "abcdefghi"]}
    },
    "6,000 properties": {"json": {"properties": {f"p{i}": {"maxLength": i} for i in range(6000)}}},
    "more bytes than are read": {"json": {"enum": [f"value {i}" for i in range(30_000)]}},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_constraint_ends_in_our_error(name, compiler, monkeypatch):
    monkeypatch.setattr(constraints, "SECONDS", 1.0)  # the suite has little time
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UserError, match=r"structured_outputs: the (json|regex|grammar) ") as caught:
        compiled(compiler, HOSTILE[name])
    # Not a measurement of speed: the promise is an end. The margin is for a busy machine.
    assert time.monotonic() - start < 20
    assert len(caught.value.message) < 800
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB
    compiled(compiler, {"json": True}).allowed()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a chain of rules", "is nested too deeply, or takes more than 512 MiB, to compile"),
        ("more bytes than are read", "at most 262,144 are read"),
        ("a schema of depth 300", "recursion limit"),
    ],
)
def test_the_messages_of_the_limits(name, message, monkeypatch):
    monkeypatch.setattr(constraints, "SECONDS", 120.0)  # on a busy machine too, it is not time that runs out
    tokenizer = byte_level()
    with pytest.raises(UserError, match=message):
        compiled(ConstraintCompiler(tokenizer, tokenizer.vocab_size, tokenizer.stop_ids), HOSTILE[name])


def test_the_message_of_the_time_limit(compiler, monkeypatch):
    compiled(compiler, {"choice": ["a"]})  # its process has started: that takes time too
    monkeypatch.setattr(constraints, "SECONDS", 0.05)
    with pytest.raises(UserError, match="takes longer than 0 s to compile"):
        compiled(compiler, HOSTILE["a multiple that compiles for seconds"])


GOOD = {
    "a deep schema": {"json": nested(50)},
    "a recursive schema": {"json": {"properties": {"next": {"$ref": "#"}}}},
    "300 properties": {"json": {"properties": {f"p{i}": {"type": "string"} for i in range(300)}}},
    "2,000 values": {"json": {"enum": [f"v{i}" for i in range(2000)]}},
    "2,000 choices": {"choice": [f"v{i}" for i in range(2000)]},
    "a long text": {"json": {"type": "string", "maxLength": 10**6}},
    "formats": {"json": {"properties": {name: {"format": name} for name in ("date-time", "email", "uuid", "uri")}}},
    "numbers of all sizes": {"json": {"enum": [0, -0.0, 2**53, -1.5, 0.1, 123456789.012345, 1e20, 2.5e-10]}},
    "what the schema itself asks to overlook": {"json": {"not": {}, "x-guidance": {"lenient": True}}},
    "letters of all alphabets": {"regex": r"\p{L}+"},
    "brackets in texts of a grammar": {"grammar": 'start: "<a>" /<b>/ "\\"<c>" // <d>\n # <e>\n'},
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_is_large_but_honest_compiles(name, compiler):
    assert compiled(compiler, GOOD[name]).allowed().any()


def test_an_ambiguous_grammar_fails_its_request_and_no_other():
    llm = noise_llm(byte_level())
    ambiguous = SamplingParams(
        max_tokens=400, structured_outputs={"grammar": 'start: s\ns: s s | s s s | "a" | "b"'}, seed=0
    )
    honest = SamplingParams(max_tokens=20, structured_outputs={"regex": "[ab]{12}"}, seed=0)
    wanted = llm.generate("good", honest)[0].text
    bad, good, events = llm.request("bad", ambiguous.replace(ignore_eos=True)), llm.request("good", honest), []
    for request in (bad, good):
        llm.engine.add(request.sequences[0], events.append)
    while llm.engine.has_work:
        llm.engine.step()
    (failed,) = [event for event in events if event.error]
    assert failed.sequence is bad.sequences[0] and isinstance(failed.error, UserError)
    assert "s of computing for" in failed.error.message and "too complex" in failed.error.hint
    assert llm.output_of(good).text == wanted and not llm.engine.scheduler.pool.ref_counts


def test_one_process_serves_many_and_is_replaced_after_a_failure(compiler):
    compiled(compiler, {"choice": ["a"]})
    first = compiler._process.popen
    compiled(compiler, {"regex": "a"})
    assert compiler._process.popen is first
    first.kill()
    first.wait()
    compiled(compiler, {"choice": ["a"]})
    assert compiler._process.popen is not first


def test_from_several_threads(compiler):
    found = {}

    def ask(number: int) -> None:
        constraint = compiled(compiler, {"choice": [chr(97 + number)]})
        found[number] = [i for i, may in enumerate(constraint.allowed()) if may]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: compiler.tokenizer.encode(chr(97 + number)) for number in range(6)}


def test_a_grammars_own_options_do_no_harm():
    """One that asks for forced tokens again, over a vocabulary that lacks a character of it."""
    tokenizer = characters()
    compiler = ConstraintCompiler(tokenizer, tokenizer.vocab_size, tokenizer.stop_ids)
    with pytest.raises(UserError):
        constraint = compiled(compiler, {"grammar": '%llguidance {"no_forcing": false}\nstart: "ab🦢"'})
        for token in tokenizer.encode("ab"):
            constraint.accept(token)
        constraint.allowed()


def test_other_requests_do_not_wait_for_hostile_constraints(monkeypatch):
    """More of them than there are threads for all: a free request is answered while they compile."""
    monkeypatch.setattr(constraints, "SECONDS", 0.4)

    async def main():
        async with AsyncEngine(noise_llm(byte_level())) as engine:
            hostile = SamplingParams(structured_outputs=HOSTILE["a multiple that compiles for seconds"])
            compiling = [asyncio.create_task(engine.generate("x", hostile)) for _ in range(40)]
            await asyncio.sleep(0.1)
            out = await engine.generate("x", SamplingParams(max_tokens=3))
            assert len(out.token_ids) == 3 and not all(task.done() for task in compiling)
            for task in compiling:
                task.cancel()
            ended = await asyncio.gather(*compiling, return_exceptions=True)
        assert all(isinstance(error, UserError | asyncio.CancelledError) for error in ended)

    asyncio.run(main())
