"""The bodies of requests: every field that is read, its type and its range. A field that is not here is refused.

What the fields mean is in OpenAI's reference, and for those that OpenAI does not have, in vLLM's. Ranges that depend
on the server's settings or the model are checked later (parameters.py). Null is as good as absent.
Not here: reading a body and naming what is wrong with it (bodies.py), the OpenAPI document (openapi.py).
Tests: tests/server/test_api_validation.py.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

MOST = 2**31 - 1  # of what is counted in tokens: far beyond any context
TokenId = Annotated[int, Field(ge=0, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Text = Annotated[str, StringConstraints(min_length=1)]
JsonObject = dict[str, Any]

# A value of several kinds is read as the kind it looks like, so an error is about that kind alone. The tags would
# show in the paths of errors: validation.py leaves them out.
TAGS = ("<text>", "<texts>", "<ids>", "<lists>", "<list>", "<object>", "<part>", "<image>")


def _either(expected: str, **of_list: str) -> Discriminator:
    """The kind of a value by its type. of_list: where lists are of several kinds, the kind by the type of an item."""

    def kind(value: Any) -> str | None:
        if isinstance(value, list):
            return of_list.get(type(value[0]).__name__ if value else "str") if of_list else "<list>"
        return "<text>" if isinstance(value, str) else "<object>" if isinstance(value, dict) else None

    return Discriminator(kind, custom_error_type="kind", custom_error_message=f"must be {expected}")


Ids = Annotated[list[TokenId], Field(min_length=1)]
Prompt = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[str], Field(min_length=1), Tag("<texts>")]
    | Annotated[Ids, Tag("<ids>")]
    | Annotated[list[Ids], Field(min_length=1), Tag("<lists>")],
    _either(
        "a string, a list of strings, a list of token ids, or a list of such lists",
        str="<texts>", int="<ids>", list="<lists>",
    ),
]  # fmt: skip
Texts = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[list[Text], Tag("<list>")], _either("a string or a list of strings")
]
Schema = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[JsonObject, Tag("<object>")], _either("a JSON schema, or one as text")
]


class Strict(BaseModel):
    """JSON's own types without conversion, finite numbers, no unknown field."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Body(Strict):
    """A whole body. refused: fields of OpenAI's or vLLM's API that are not supported, and what to do instead."""

    refused: ClassVar[Mapping[str, str]] = {}

    model: str | None = None  # None: the model that is served


class Part(Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    url: str  # data:image/...;base64,...
    detail: Literal["auto", "low"] | None = None  # low: not split into tiles; auto: as the model's own processor does


class ImagePart(Strict):
    """A picture among a message's parts."""

    type: Literal["image_url"]
    image_url: ImageUrl


def _part_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "<image>" if kind == "image_url" else "<part>"


AnyPart = Annotated[Annotated[Part, Tag("<part>")] | Annotated[ImagePart, Tag("<image>")], Discriminator(_part_kind)]


class FunctionCall(Strict):
    name: Text
    arguments: str  # JSON, as text


class ToolCall(Strict):
    """A call that the assistant made, in a conversation that goes on."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None  # clients that joined a stream's pieces send it back


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[AnyPart], Tag("<list>")],
    _either('a string, or a list of parts such as {"type": "text", "text": "Hello"}'),
]


class Message(Strict):
    """One message. `refusal`, `annotations`, `audio` and `function_call` may be there, empty: OpenAI's clients send
    an answer's message back whole."""

    role: Text
    content: Content | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None


class Function(Strict):
    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.:-]{1,64}$")]
    description: str | None = None
    parameters: JsonObject | None = None  # a JSON schema; None: no parameters
    strict: bool | None = None  # calls obey the schema; forced ones always do


class Tool(Strict):
    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    name: Text


class NamedTool(Strict):
    """tool_choice: this very function."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<text>")] | Annotated[NamedTool, Tag("<object>")],
    _either('"none", "auto", "required" or {"type": "function", "function": {"name": NAME}}'),
]


class StreamOptions(Strict):
    """include_usage: a last chunk with the usage. continuous_usage_stats: the usage so far in every chunk."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: Literal[False] | None = None


class JsonSchema(Strict):
    name: str | None = None
    description: str | None = None
    schema_: JsonObject = Field(alias="schema")
    strict: bool | None = None  # the schema is always obeyed


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Strict):
    """One of these: what the output must obey (vol3_engine/constraints.py)."""

    json_: Schema | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Annotated[list[Text], Field(min_length=1)] | None = None
    grammar: str | None = None


class GenerationBody(Body):
    """The fields that /v1/completions and /v1/chat/completions share."""

    max_tokens: Count | None = None
    min_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=MOST)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MOST)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    logit_bias: (
        dict[Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}$")], Annotated[float, Field(ge=-100, le=100)]]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None  # a negative one counts modulo 2^64
    stop: Texts | None = None
    stop_token_ids: list[TokenId] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    prompt_logprobs: Count | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None  # the last so many are kept
    return_token_ids: bool | None = None
    # Accepted, and without effect on the answer:
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None  # prefixes are shared without it
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None  # nothing is stored
    service_tier: Literal["auto", "default"] | None = None


NOTED = ("user", "safety_identifier", "prompt_cache_key", "metadata", "store", "service_tier")

_NO_CONSTRAINTS = "Use response_format or structured_outputs."
_OLD_CONSTRAINTS = {
    name: _NO_CONSTRAINTS for name in ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
}


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    refused: ClassVar[Mapping[str, str]] = {
        "suffix": "Put the whole context into prompt.",
        "best_of": "Ask for n samples with logprobs, and choose among them.",
        "use_beam_search": "Sample, or set temperature to 0.",
        **_OLD_CONSTRAINTS,
    }

    prompt: Prompt
    echo: bool | None = None
    logprobs: Count | None = None
    add_special_tokens: bool | None = None  # None and True: BOS where the tokenizer's own file says so


class TemplateBody(Body):
    """The fields that say how a conversation becomes a prompt."""

    refused: ClassVar[Mapping[str, str]] = {
        "chat_template": "A template comes with the model; one from a request would be a program run here.",
        "documents": "Put them into a message.",
    }

    tools: Annotated[list[Tool], Field(min_length=1)] | None = None
    add_generation_prompt: bool | None = None  # None: unless the last message is continued
    continue_final_message: bool | None = None
    chat_template_kwargs: JsonObject | None = None


Messages = Annotated[list[Message], Field(min_length=1)]


class ChatBody(GenerationBody, TemplateBody):
    """POST /v1/chat/completions."""

    refused: ClassVar[Mapping[str, str]] = {
        **TemplateBody.refused,
        **_OLD_CONSTRAINTS,
        "functions": "Use tools.",
        "function_call": "Use tool_choice.",
        "audio": "Only text is written.",
        "prediction": "Leave it out.",
        "reasoning_effort": "Leave it out, or see chat_template_kwargs.",
        "verbosity": "Ask for it in a message.",
        "web_search_options": "This server does not search.",
        "moderation": "This server does not moderate.",
        "echo": "Use continue_final_message, or /v1/completions.",
        "best_of": "Ask for n samples with logprobs, and choose among them.",
        "use_beam_search": "Sample, or set temperature to 0.",
    }

    messages: Messages
    max_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None  # None: the rest of the context
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None
    logprobs: bool | None = None
    top_logprobs: Count | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None


class RenderBody(TemplateBody):
    """POST /v1/chat/completions/render: what of a conversation the model would read."""

    messages: Messages


class TokenizeBody(TemplateBody):
    """POST /tokenize: a text (`prompt`) or a conversation (`messages`), as vLLM's."""

    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None  # of a text: None and True: BOS where the tokenizer's own file says so
    parse_special: bool | None = None  # of a text: None and True: "<|endoftext|>" is that token; False: its characters
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    """POST /detokenize."""

    tokens: list[TokenId]
