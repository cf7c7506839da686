"""The process in which a chat template runs: a program that came with a file gets its own process.

Started by chat.py as a script, so it imports Jinja2 and little else. It speaks lines of JSON:

    in    {"path": [...], "template": "...", "memory": bytes, "seconds": n}       once
    out   {"ready": true}, then {"names": [...], "reads_parts": bool, "reads_text": bool, "marks_answers": bool}
          or {"error": kind, "message": "..."}
    in    {"variables": {...}, "limit": characters}                              any number of times
    out   {"text": "..."} or {"error": kind, "message": "..."}

Memory is bounded by the operating system where it can (RLIMIT_AS: not on Windows, in name only on macOS), output by
`limit`, time by the parent, which kills it; RLIMIT_CPU is for when the parent has died. What a template may touch is
bounded by Jinja2's immutable sandbox. Filters and globals are those that transformers gives to templates.

Tests: tests/tokenizer/test_template_limits.py.
"""

import json
import signal
import sys

GENERATION = ("generation_begins", "generation_ends")  # variables: printed before and after a {% generation %} block


def serve(lines, answer) -> None:
    """Answer every line until there are no more."""
    setup = json.loads(next(lines))
    sys.path[:] = setup["path"]
    import jinja2.ext  # all of it now: memory is limited afterwards
    import jinja2.sandbox

    from nano_llama.core.limited_process import limit_resources

    limit_resources(setup["memory"], setup["seconds"])
    answer({"ready": True})
    try:
        template, facts = compile_template(setup["template"])
    except jinja2.TemplateSyntaxError as error:
        return answer({"error": "syntax", "message": f"line {error.lineno}: {error.message}"})
    except (MemoryError, RecursionError, Exception) as error:
        return answer(failure(error))
    answer(facts)
    for line in lines:
        request = json.loads(line)
        limit_resources(setup["memory"], setup["seconds"])
        try:
            answer({"text": render(template, request["variables"], request["limit"])})
        except (MemoryError, RecursionError, Exception) as error:
            answer(failure(error))


def compile_template(source: str):
    """The environment of transformers' apply_chat_template, so that a template means the same here.

    -> the template, and what it does with its input: the names it reads, and how it reads a message's content.
    """
    import jinja2.meta
    import jinja2.nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationBlock(Extension):
        """{% generation %} marks the assistant's part for training: it prints what is in it, between two variables.

        An undefined variable prints nothing.
        """

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            begin, end = (jinja2.nodes.Output([jinja2.nodes.Name(name, "load")]) for name in GENERATION)
            return jinja2.nodes.Scope([begin, *body, end]).set_lineno(line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationBlock]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    tree = environment.parse(source)
    names = jinja2.meta.find_undeclared_variables(tree)
    facts = content_facts(tree) | {"marks_answers": not names.isdisjoint(GENERATION)}
    return environment.from_string(source), {"names": sorted(names.difference(GENERATION)), **facts}


def content_facts(tree) -> dict[str, bool]:
    """reads_parts: a loop runs over a message's content, or over a variable that was set from it.
    reads_text: it is printed as a whole, or asked whether it is a text. A loop over a text's characters prints nothing.
    """
    from jinja2 import nodes

    def mentions(expression, names: set[str]) -> bool:
        attributes = (node.attr for node in expression.find_all(nodes.Getattr))
        items = (node.arg for node in expression.find_all(nodes.Getitem))
        constants = (item.value for item in items if isinstance(item, nodes.Const))
        read = (node.name for node in [expression, *expression.find_all(nodes.Name)] if isinstance(node, nodes.Name))
        return "content" in attributes or "content" in constants or not names.isdisjoint(read)

    def is_content(expression, names: set[str]) -> bool:
        """message.content itself, filtered perhaps; not what is computed from it, such as content.split()."""
        while isinstance(expression, nodes.Filter) and expression.node is not None:
            expression = expression.node
        simple = isinstance(expression, nodes.Getattr | nodes.Getitem | nodes.Name)
        return simple and mentions(nodes.Output([expression]), names)

    held: set[str] = set()
    for assignment in tree.find_all(nodes.Assign):
        if isinstance(assignment.target, nodes.Name) and is_content(assignment.node, held):
            held.add(assignment.target.name)

    def prints_content(output) -> bool:
        """As a whole, or what a text's method makes of it; not a part of it, content[0]."""
        items = list(output.find_all(nodes.Getitem))
        indexed = {id(item.node) for item in items}
        named = [item for item in items if isinstance(item.arg, nodes.Const) and item.arg.value == "content"]
        named += [one for one in output.find_all(nodes.Getattr) if one.attr == "content"]
        named += [name for name in output.find_all(nodes.Name) if name.name in held]
        return any(id(one) not in indexed for one in named)

    printed = any(prints_content(output) for output in tree.find_all(nodes.Output))
    asked = any(test.name in ("string", "iterable", "sequence", "mapping") for test in tree.find_all(nodes.Test))
    parts = any(is_content(loop.iter, held) for loop in tree.find_all(nodes.For))
    return {"reads_parts": parts, "reads_text": printed or asked}


def render(template, variables: dict, limit: int) -> str:
    """The template's output; TooLong when it grows beyond `limit` characters."""
    pieces, length = [], 0
    for piece in template.generate(variables):
        length += len(piece)
        if length > limit:
            raise TooLong(f"it prints more than {limit:,} characters")
        pieces.append(piece)
    return "".join(pieces)


class TooLong(Exception):
    pass


class Refused(Exception):
    """Raised by a template through raise_exception."""


def raise_exception(message):
    raise Refused(str(message))


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    """Jinja2's own would escape HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(format):
    from datetime import datetime

    return datetime.now().strftime(format)


def failure(error: BaseException) -> dict:
    kinds: dict[type, str] = {Refused: "refused", TooLong: "too long", MemoryError: "memory"}
    return {"error": kinds.get(type(error), "failed"), "message": f"{type(error).__name__}: {error}"[:1000]}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent

    def answer(reply: dict) -> None:
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()

    serve(iter(sys.stdin.readline, ""), answer)


if __name__ == "__main__":
    main()
