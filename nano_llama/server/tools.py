"""Tool calls: which ones a model may make, how it is made to, and how its text is read as calls.

A call is "auto" if the model itself decides: then its template must show it the tools, and imply a format that we can
read. A forced call ("required", or a named function) needs neither: the output is constrained to JSON that obeys the
function's schema, and the template shows the tools if it can.

Not here: reading the text as it grows (tool_calls.py). Tests: tests/server/test_api_tools.py, test_api_forced_calls.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nano_llama.server.errors import ApiError
from nano_llama.server.parameters import check_schema
from nano_llama.server.schemas import ChatBody, NamedTool, Tool
from nano_llama.server.tool_calls import CallList, NamedCall, TaggedCalls, TextReader

if TYPE_CHECKING:
    from nano_llama.server.service import Service

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
# What a template says about the format of calls -> the format.
HERMES_CALL, OTHER_CALL = "<tool_call>", "<function="  # the second: calls in XML, which are not read here
LLAMA_CALL = '{"name": function name, "parameters":'


@dataclass(frozen=True)
class ToolUse:
    """How the tools of one request are used.

    shown: the tools for the template, or None. forced: the constraint, or None. parallel: whether an answer may have
    more than one call. form: "hermes", "llama", "array", "named", or None: no tools, text is text. name: the function
    of "named".
    """

    shown: list[dict[str, Any]] | None = None
    forced: Mapping[str, Any] | None = None
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
                return CallList("[],", self.parallel)
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
        return ToolUse(shown, None, parallel, _detected(body, tools, template))
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


def _detected(body: ChatBody, tools: Sequence[Tool], template: str | None) -> str:
    """The format that the template implies for calls that the model decides on. Raises ApiError where there is none."""
    instead = 'Use tool_choice "required", or name a function: such calls work with every model.'
    if template is None:
        raise ApiError(
            400, f"tools: this model's chat template does not read them. {instead}", param="tools", code="unsupported"
        )
    for tool in tools:
        if tool.function.strict:
            raise ApiError(
                400, f"tools: strict=true of {tool.function.name!r} is for forced calls. {instead}", param="tools"
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
    """A list of calls, each {"name", "arguments"} of one of the tools.

    A function's schema becomes a part of this one, so what it refers to within itself ("#/$defs/...") moves along.
    """
    calls, schemas = [], {}
    for number, tool in enumerate(tools):
        place = str(number)
        schemas[place] = _moved(tool.function.parameters or NO_PARAMETERS, f"#/$defs/{place}")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.function.name}, "arguments": {"$ref": f"#/$defs/{place}"}},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    most = {} if parallel else {"maxItems": 1}
    return {"type": "array", "items": {"anyOf": calls}, "minItems": 1, **most, "$defs": schemas}


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
