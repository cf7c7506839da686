"""What a server should survive: bodies that are nearly right, constraints that are not meant well, idle connections.

All are drawn by a random number generator, so a seed repeats them.
"""

import random
import string
from collections.abc import Callable
from typing import Any

# -- bodies ---------------------------------------------------------------------------------------------------------

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
GOOD: dict[str, dict[str, Any]] = {
    "/v1/completions": {
        "prompt": "the quick", "max_tokens": 4, "temperature": 1, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "n": 2,
        "stop": ["x"], "seed": 3, "logprobs": 2, "echo": True, "logit_bias": {"5": 1}, "stop_token_ids": [3],
        "stream": False, "presence_penalty": 0.1, "frequency_penalty": 0.1, "repetition_penalty": 1.1, "min_tokens": 1,
        "ignore_eos": True, "add_special_tokens": True, "truncate_prompt_tokens": 3, "return_token_ids": True,
        "prompt_logprobs": None, "structured_outputs": None, "response_format": None, "stream_options": None,
    },
    "/v1/chat/completions": {
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "1", "content": "2"},
        ],
        "max_tokens": 4, "logprobs": True, "top_logprobs": 2, "tools": TOOLS, "tool_choice": "auto", "stop": "zz",
        "parallel_tool_calls": True, "continue_final_message": False, "add_generation_prompt": True, "n": 1,
        "stream": True, "stream_options": {"include_usage": True}, "response_format": {"type": "text"},
        "truncate_prompt_tokens": 20, "prompt_logprobs": None, "max_completion_tokens": 4, "structured_outputs": None,
    },
    "/v1/chat/completions/render": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "tools": TOOLS,
    },
    "/tokenize": {"prompt": "the", "add_special_tokens": False, "parse_special": True, "return_token_strs": True},
    "/detokenize": {"tokens": [1, 2, 3]},
}  # fmt: skip
NEEDS = {"stream_options": "stream", "tool_choice": "tools", "parallel_tool_calls": "tools", "top_logprobs": "logprobs"}
STRANGE = [
    None, True, False, 0, 1, -1, 16, 17, 20, 21, 255, 256, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, 1.5,
    "", " ", "x", "\x00", "漢" * 50, "\ud800", "🙂" * 20, "<|endoftext|>", "</tool_call>", "[[[[[", "auto", "required",
    "none", [], {}, [[]], [None], [""], ["a", 1], ["a", "b"], [0], [299], [300], [5] * 255, [5] * 256, [[5], [6]],
    {"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {}}},
    {"json": {"properties": {"x": {"$ref": "#/$defs/y"}}}}, {"json": {}}, {"json": True}, {"json": "{}"},
    {"regex": "a+"}, {"regex": "(a+)+$"}, {"regex": "["}, {"choice": ["a", "b"]}, {"choice": []},
    {"grammar": 'start: "a"'}, {"grammar": "start: x"}, {"include_usage": True}, {"5": 100}, {"299": 1}, {"300": 1},
    {"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}},
    [{"role": "user", "content": "x"}], [{"role": "assistant", "content": "x"}], [{"type": "text", "text": "x"}],
]  # fmt: skip


def changed(rng: random.Random, value: Any) -> Any:
    """The value with something in it replaced, left out or added."""
    if isinstance(value, dict) and value and rng.random() < 0.7:
        name = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.1:
            return {other: value[other] for other in value if other != name}
        if kind < 0.13:
            return {**value, "extra": rng.choice(STRANGE)}
        return {**value, name: changed(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.6:
        place = rng.randrange(len(value))
        return [*value[:place], changed(rng, value[place]), *value[place + 1 :]]
    alike = [strange for strange in STRANGE if type(strange) is type(value)]
    return rng.choice(alike if alike and rng.random() < 0.6 else STRANGE)


def body_for(rng: random.Random, path: str) -> dict[str, Any]:
    """A good body with one to three things wrong, or merely unusual."""
    needed = ("prompt", "messages", "tokens")
    body = {name: value for name, value in GOOD[path].items() if name in needed or rng.random() < 0.65}
    for name, other in NEEDS.items():
        if not body.get(other):
            body.pop(name, None)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        name, kind = rng.choice(list(body) or ["model"]), rng.random()
        if kind < 0.05:
            body.pop(name, None)
        elif kind < 0.07:
            body["extra"] = rng.choice(STRANGE)
        else:
            body[name] = changed(rng, body.get(name))
    return body


# -- constraints ------------------------------------------------------------------------------------------------------

REGEXES = [
    "(a+)+$", "(a|a)*b", "(a|aa)+$", "((a{0,100}){0,100}){0,100}", "(?=a)b", "(?!a)", r"(a)\1", "[", "(", "a{2,1}", "*",
    r"\p{L}{1,2000}", "[^a]*" * 200, "(" * 500 + ")" * 500, "a{0,60000}", r"[\u0000-\U0010ffff]{500}", "x*" * 3000,
    "(.*a){20}", "(a?){5000}a{5000}", "\x00", "", "$^", "(?i)strasse", r"\b\B", "\ud7ff", "🙂{1,9}|漢",
    "[a-\U0010ffff]+z",
]  # fmt: skip
GRAMMARS = [
    'start: "a"', "start: start", 'start: start "a" | "b"', "start: x", 'start: x\nx: y\ny: x | "a"', "", "start:",
    'root ::= "a" root | ""', "root ::= root", 'start: (("a" | "a") ("a" | "a"))* "b"', "start: /(a+)+$/", "start: /[/",
    'start: <|endoftext|>', 'start: "' + "a" * 20_000 + '"', "start: " + "(" * 400 + '"a"' + ")" * 400,
    'start: "a"{1,100000}', 'start: %json {"type": "string"}', "start: %json {", '%ignore /x/\nstart: "a"',
    "start: a0\n" + "\n".join(f"a{i}: a{i + 1} a{i + 1}" for i in range(40)) + '\na40: "x"',
    'start[max_tokens=5]: /.*/',
    "\n".join(["start: r0", *(f"r{i}: r{i + 1}" for i in range(3_000)), 'r3000: "x"']), "start: /(?s:.*)/ start?",
]  # fmt: skip
FORMATS = ["date-time", "email", "uuid", "uri", "ipv6", "regex", "none of these"]


def constraint(rng: random.Random) -> dict[str, Any]:
    """A value of structured_outputs."""
    kind = rng.random()
    if kind < 0.5:
        return {"json": schema(rng, rng.choice([1, 2, 3, 6]))}
    if kind < 0.75:
        return {"regex": regex(rng)}
    if kind < 0.9:
        return {"grammar": damaged(rng, rng.choice(GRAMMARS))}
    words = ["", "a", "ab", "漢", "\x00", "x" * 5_000, *map(str, range(rng.choice([1, 50, 2_000])))]
    return {"choice": rng.sample(words, rng.randint(1, len(words)))}


def regex(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return damaged(rng, rng.choice(REGEXES))
    return "".join(rng.choices([*"ab.*+?|()[]{}^$\\-,019", "\\d", "\\w", "{2,9}", "(?:", "[^"], k=rng.randint(1, 60)))


def damaged(rng: random.Random, text: str) -> str:
    """The text; one time in three with a character replaced."""
    if not text or rng.random() < 0.67:
        return text
    place = rng.randrange(len(text))
    return text[:place] + rng.choice(string.punctuation + "a1 \n\u202e") + text[place + 1 :]


def schema(rng: random.Random, depth: int) -> Any:
    """A JSON schema: of odd numbers, contradictions, loops, and keywords that few support."""

    def inner() -> Any:
        return schema(rng, depth - 1) if depth > 0 else rng.choice([True, False, {}, {"type": "null"}])

    def name() -> str:
        return rng.choice(["a", "b", "", "$ref", "漢", "x" * 300, "\u0000", "properties"])

    number = rng.choice([0, -1, 1, 7, 0.1, 1e-9, 999_983, 10**15, 10**30, 1e308, 2**53 + 1])
    count = rng.choice([0, 1, 5, 100, 100_000, 2**40])
    made: list[Callable[[], Any]] = [
        lambda: {"properties": {name(): inner() for _ in range(rng.choice([1, 3, 8]))}, "required": [name()]},
        lambda: {"type": "object", "additionalProperties": inner(), "minProperties": count},
        lambda: {"type": "object", "patternProperties": {regex(rng): inner()}},
        lambda: {"type": "array", "items": inner(), "minItems": count, "maxItems": rng.choice([0, 3, count])},
        lambda: {"type": "array", "prefixItems": [inner() for _ in range(rng.choice([1, 20]))], "uniqueItems": True},
        lambda: {"type": "string", "pattern": regex(rng), "maxLength": count},
        lambda: {"type": "string", "minLength": count, "maxLength": rng.choice([0, 10, count])},
        lambda: {"type": "string", "format": rng.choice(FORMATS)},
        lambda: {"type": rng.choice(["integer", "number"]), "multipleOf": number},
        lambda: {"type": rng.choice(["integer", "number"]), "minimum": number, "maximum": rng.choice([number, 9])},
        lambda: {"enum": [rng.choice([None, 1, "a", [], {}, 1.5, True]) for _ in range(rng.choice([0, 1, 300]))]},
        lambda: {"const": {name(): [number]}},
        lambda: {rng.choice(["anyOf", "oneOf", "allOf"]): [inner() for _ in range(rng.choice([0, 1, 2, 12]))]},
        lambda: {rng.choice(["not", "if", "contains", "propertyNames", "unevaluatedProperties"]): inner()},
        lambda: {"$ref": rng.choice(["#", "#/$defs/x", "#/nowhere", "http://localhost:1/x", "#/$defs/loop"]), "$defs": {
            "x": inner(), "loop": {"$ref": "#/$defs/loop"},
        }},
        lambda: {"type": [rng.choice(["string", "null", "thing", "object"]), "integer"]},
        lambda: {"type": rng.choice(["thing", 5, None, [], {}])},
        lambda: {"x-guidance": {"whitespace_pattern": regex(rng), "lenient": True}, "type": "object"},
        lambda: rng.choice(STRANGE),
    ]  # fmt: skip
    found, other = rng.choice(made)(), inner() if depth > 0 and rng.random() < 0.1 else None
    return {**found, **other} if isinstance(found, dict) and isinstance(other, dict) else found


# -- connections ------------------------------------------------------------------------------------------------------

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
BODY = b'{"prompt": "the quick", "max_tokens": 4}'
SENT = [  # and then nothing more
    b"", b"\0", b"G", b"POST /v1/completions HT", HEAD, HEAD + b"content-length: 40\r\n\r\n",
    HEAD + b"content-length: 40\r\n\r\n" + BODY[:20], HEAD + b"transfer-encoding: chunked\r\n\r\n",
    HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{", HEAD + b"expect: 100-continue\r\ncontent-length: 40\r\n\r\n",
    HEAD + b"content-length: 40\r\n\r\n" + BODY, HEAD + b"content-length: 999999999\r\n\r\n",
    (HEAD + b"content-length: 40\r\n\r\n" + BODY) * 20, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\nx: " + b"y" * 15_000,
]  # fmt: skip
