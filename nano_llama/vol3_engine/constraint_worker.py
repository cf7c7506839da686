"""The process that tries a constraint first: a schema or a grammar that came with a request is not trusted.

llguidance has limits of its own, but some inputs get past them: a chain of 3,000 rules overflows the stack, which ends
the process; a `multipleOf` of a million compiles for seconds in hundreds of megabytes. So each is compiled here, over
bytes, before the engine's process compiles it over the model's vocabulary. The script speaks lines of JSON:

    in    {"path": [...], "memory": bytes, "seconds": n, "stack": bytes, "limits": {...}}     once
    out   {"ready": true}
    in    {"kind": "json" | "regex" | "choice" | "grammar", "given": ...}                     any number of times
    out   {"grammar": "..."}, as llguidance reads it, or {"error": "..."} in llguidance's words

Compiling runs in a thread with a small stack, so what passes here does not overflow the stack of the engine's process.
Started by constraints.py. Tests: tests/vol3/test_constraint_limits.py.
"""

import json
import re
import signal
import sys
import threading
from decimal import Decimal

# JSON's white space, which llguidance would let a model repeat without end.
WHITESPACE = r"[\x20\x0A\x0D\x09]{0,8}"
# Any tokens whose bytes follow the grammar may come, where llguidance would allow only those of its own encoding.
ANY_SPELLING = '%llguidance {"no_forcing": true}'
BYTES = [bytes([byte]) for byte in range(256)]


class ByteVocabulary:
    """What llguidance asks of a tokenizer: every byte is a token, and 256 ends the text."""

    eos_token_id, bos_token_id = 256, None
    tokens, special_token_ids = [*BYTES, b"<end>"], [256]

    def __call__(self, text) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


def serve(lines, answer) -> None:
    """Answer every line until there are no more."""
    setup = json.loads(next(lines))
    sys.path[:] = setup["path"]
    import llguidance

    from nano_llama.core.limited_process import limit_resources

    vocabulary = llguidance.LLTokenizer(llguidance.TokenizerWrapper(ByteVocabulary()), n_vocab=257, eos_token=[256])
    limits = llguidance.LLParserLimits(**setup["limits"])
    threading.stack_size(setup["stack"])
    answer({"ready": True})

    def attempt(request: dict, reply: dict) -> None:
        try:
            grammar = grammar_of(request["kind"], request["given"])
            matcher = llguidance.LLMatcher(vocabulary, grammar, log_level=0, limits=limits)
            if not matcher.is_error():
                matcher.compute_bitmask()
            if matcher.is_error():
                reply["error"] = in_terms_of(request["kind"], matcher.get_error())
            else:
                reply["grammar"] = grammar
        except (MemoryError, RecursionError, Exception) as error:
            reply["error"] = f"{error}" or type(error).__name__

    for line in lines:
        limit_resources(setup["memory"], setup["seconds"])
        reply: dict[str, str] = {}
        thread = threading.Thread(target=attempt, args=(json.loads(line), reply))
        thread.start()
        thread.join()
        answer(reply)


def grammar_of(kind: str, given) -> str:
    """llguidance's own form of a constraint. Raises ValueError and what llguidance raises."""
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import any_to_lark

    if kind == "json":
        lark = "start: %json " + json.dumps(
            with_bounded_whitespace(json.loads(given, parse_int=exact_number, parse_float=exact_number))
        )
    elif kind == "regex":
        lark = json.loads(LLMatcher.grammar_from_regex(given))["grammars"][0]["lark_grammar"]
    elif kind == "choice":
        lark = "start: " + " | ".join(map(json.dumps, given))
    else:
        assert kind == "grammar", f"unknown kind {kind}"
        lark = any_to_lark(given)
        refuse_special_tokens(lark)
    return LLMatcher.grammar_from_lark(f"{lark}\n{ANY_SPELLING}")  # behind it: the numbers of its lines stay


def exact_number(text: str) -> int | float:
    """A number of a schema. ValueError for one that llguidance, which holds numbers in float64, would change."""
    number = float(text) if any(letter in text for letter in ".eE") else int(text)
    whole = number == int(number) and abs(number) <= 2**53
    if not whole and not (Decimal(text) == Decimal(f"{number:.15g}") and 1e-22 < abs(number) < 1e22):
        raise ValueError(f"the number {text:.40} is too long, too large or too small to be followed exactly")
    return number


def with_bounded_whitespace(schema: dict) -> dict:
    """The schema with our white space, unless it says what it wants itself."""
    own = schema.get("x-guidance", {})
    if not isinstance(own, dict) or "whitespace_flexible" in own:
        return schema
    return {**schema, "x-guidance": {"whitespace_pattern": WHITESPACE, **own}}


def in_terms_of(kind: str, error: str) -> str:
    """llguidance's message for what was given, without what `grammar_of` has put around it."""
    if error.startswith("NoExtensionBias"):
        return "no text satisfies it"
    if kind == "grammar":
        return error
    return re.sub(r"^at 1\(\d+\): (failed to compile JSON schema: )?", "", error.partition("\n   1 | start:")[0])


def refuse_special_tokens(lark: str) -> None:
    """In Lark as llguidance reads it, <name> and <[number]> outside of texts and expressions are special tokens."""
    quoted = r'"(?:\\.|[^"\\\n])*"|/(?![/*])(?:\\.|[^/\\\n])+/|//[^\n]*|#[^\n]*'
    found = re.search(r"<[^>\s]*>?", re.sub(quoted, " ", lark))
    if found:
        raise ValueError(f"special tokens such as {found[0]} are not produced inside a text")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent

    def answer(reply: dict) -> None:
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()

    serve(iter(sys.stdin.readline, ""), answer)


if __name__ == "__main__":
    main()
