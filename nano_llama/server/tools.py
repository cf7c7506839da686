"""Tool calls: which ones a model may make, how it is made to, and how its text is read as calls.

A call is "auto" if the model itself decides: then its template must show it the tools, and imply a format that we can
read. Where a function is strict, or only one call may come, a grammar lets any text come, but only such calls in it.
A forced call ("required", or a named function) needs no such template: the output is constrained to JSON that obeys
the function's schema, and the template shows the tools if it can.

Not here: reading the text as it grows (tool_calls.py). Tests: tests/server/test_api_tools.py, test_api_forced_calls.py.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nano_llama.server.errors import ApiError
from nano_llama.server.parameters import check_schema
from nano_llama.server.schemas import ChatBody, Function, NamedTool, Tool
from nano_llama.server.tool_calls import CallList, NamedCall, TaggedCalls, TextReader

if TYPE_CHECKING:
    from nano_llama.server.service import Service

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
# What a template says about the format of calls -> the format.
HERMES_CALL, OTHER_CALL = "<tool_call>", "<function="  # the second: calls in XML, which are not read here
LLAMA_CALL = '{"name": function name, "parameters":'

# Texts with calls in them, in Lark as llguidance reads it: how a text goes if it may have several calls, and what is in
# it. In Hermes' form, text ends where the tag begins: [lazy].
ONE_CALL = "call | TEXT"
GRAMMARS = {
    "hermes": (
        "call* TEXT",
        r"""
call: head BLANK? json BLANK? "</tool_call>"
head[lazy]: TEXT "<tool_call>"
TEXT: /(.|\n)*/
""",
    ),
    "llama": (
        'call (";" BLANK? call)* | TEXT',
        r"""
call: json
TEXT: /([^{ \n](.|\n)*)?/
""",
    ),
}


@dataclass(frozen=True)
class ToolUse:
    """How the tools of one request are used.

    shown: the tools for the template, or None. constraint: as SamplingParams.structured_outputs. parallel: whether an
    answer may have more than one call. form: "hermes", "llama", "array", "named", or None: no tools, text is text.
    name: the function of "named".
    """

    shown: list[dict[str, Any]] | None = None
    constraint: Mapping[str, Any] | None = None
    parallel: bool = True
    form: str | None = None
    name: str = ""

    def reader(self) -> TextReader | None:
        """A new reader for one answer."""
        match self.form:
            case "hermes":
                return TaggedCalls(HERMES_CALL, "</tool_call>", self.parallel)
            case "llama":
                return CallList(";", self.parallel)
            case "array":
                return CallList("[],", self.parallel, forced=True)
            case "named":
                return NamedCall(self.name)
        return None


def tool_use(body: ChatBody, service: "Service", template: str | None) -> ToolUse:
    """template: the source of the chat template that would show the tools; None: it reads none.

    Raises ApiError for what cannot be honoured.
    """
    choice, tools = body.tool_choice, body.tools
    if tools is None:
        for name in ("tool_choice", "parallel_tool_calls"):
            if getattr(body, name) not in (None, "none"):
                raise ApiError(400, f"{name} needs tools.", param=name)
        return ToolUse()
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise ApiError(400, f"tools has two functions of one name: {', '.join(names):.200}.", param="tools")
    if choice == "none":
        return ToolUse()
    shown = [tool.model_dump(exclude_none=True) for tool in tools] if template is not None else None
    parallel = body.parallel_tool_calls is not False
    if choice in (None, "auto"):
        form = _detected(body, template)
        strict = any(tool.function.strict for tool in tools)
        constraint = {"grammar": text_grammar(form, tools, parallel)} if strict or not parallel else None
        check_schema(constraint or {}, "tools", service)
        return ToolUse(shown, constraint, parallel, form)
    for name in ("response_format", "structured_outputs"):
        value = getattr(body, name)
        if value is not None and getattr(value, "type", "") != "text":
            raise ApiError(400, f"{name} and a forced tool call exclude each other. Give one.", param=name)
    if isinstance(choice, NamedTool):
        wanted = choice.function.name
        if wanted not in names:
            raise ApiError(
                400, f"tool_choice names {wanted!r:.80}, which is not among tools: {', '.join(names):.200}.",
                param="tool_choice",
            )  # fmt: skip
        forced, form = tools[names.index(wanted)].function.parameters or NO_PARAMETERS, "named"
    else:
        wanted, form = "", "array"
        forced = calls_schema(tools, parallel)
    check_schema(forced, "tools", service)
    return ToolUse(shown, {"json": forced}, parallel, form, wanted)


def _detected(body: ChatBody, template: str | None) -> str:
    """The format that the template implies for calls that the model decides on. Raises ApiError where there is none."""
    instead = 'Use tool_choice "required", or name a function: such calls work with every model.'
    if template is None:
        raise ApiError(
            400, f"tools: this model's chat template does not read them. {instead}", param="tools", code="unsupported"
        )
    if body.response_format is not None and body.response_format.type != "text":
        raise ApiError(400, f"response_format leaves no place for tool calls. {instead}", param="response_format")
    if body.structured_outputs is not None:
        raise ApiError(400, f"structured_outputs leaves no place for tool calls. {instead}", param="structured_outputs")
    if HERMES_CALL in template and OTHER_CALL not in template:
        return "hermes"
    if LLAMA_CALL in template:
        return "llama"
    raise ApiError(
        400, f"tools: the calls of this model's template are in a format that is not read here. {instead}",
        param="tools", code="unsupported",
    )  # fmt: skip


def calls_schema(tools: Sequence[Tool], parallel: bool) -> dict[str, Any]:
    """A list of calls."""
    call = call_schema(tools, "arguments")
    most = {} if parallel else {"maxItems": 1}
    return {"type": "array", "items": {"anyOf": call["anyOf"]}, "minItems": 1, **most, "$defs": call["$defs"]}


def text_grammar(form: str, tools: Sequence[Tool], parallel: bool) -> str:
    """Any text in which calls obey the schemas of the functions that are strict."""
    several, rules = GRAMMARS[form]
    obeyed = [tool if tool.function.strict else _lenient(tool) for tool in tools]
    schema = json.dumps(call_schema(obeyed, "parameters" if form == "llama" else "arguments"))
    schema = schema.replace("::=", "::\\u003d")  # a description with it would make this a grammar of another kind
    return f"start: {several if parallel else ONE_CALL}{rules}BLANK: /[ \\n]{{1,4}}/\njson: %json {schema}"


def _lenient(tool: Tool) -> Tool:
    """The same function, with any arguments."""
    function = Function(name=tool.function.name, parameters={"type": "object"})
    return Tool(type="function", function=function)


def call_schema(tools: Sequence[Tool], key: str) -> dict[str, Any]:
    """One call, {"name": ..., key: ...}, of one of the tools.

    A function's schema becomes a part of this one, so what it refers to within itself ("#/$defs/...") moves along.
    """
    calls, schemas = [], {}
    for number, tool in enumerate(tools):
        place = str(number)
        schemas[place] = _moved(tool.function.parameters or NO_PARAMETERS, f"#/$defs/{place}")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.function.name}, key: {"$ref": f"#/$defs/{place}"}},
                "required": ["name", key],
                "additionalProperties": False,
            }
        )
    return {"anyOf": calls, "$defs": schemas}


def _moved(schema: Any, place: str) -> Any:
    """The schema with its references to itself made references to `place`."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: place + value[1:]
        if name == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, place)
        for name, value in schema.items()
    }
