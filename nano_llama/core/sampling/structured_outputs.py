"""What SamplingParams(structured_outputs=...) may be: vLLM's words, one of them at a time.

    {"json": schema}       JSON that a schema describes: a dict, its text, or True for any JSON object
    {"regex": text}        a regular expression that the whole text matches
    {"choice": [texts]}    one of these texts
    {"grammar": text}      a context-free grammar in Lark's syntax or in llama.cpp's (GBNF)

Not here: whether a schema, an expression or a grammar is valid and small enough (vol3_engine/constraints.py).
Tests: tests/core/test_structured_outputs.py.
"""

import json
from collections.abc import Mapping
from typing import Any

from nano_llama.core.errors import UserError

KINDS = ("json", "regex", "choice", "grammar")
_EXAMPLE = 'For example structured_outputs={"json": {"type": "object"}} or {"choice": ["yes", "no"]}.'


def checked_structured_outputs(value: Any) -> dict[str, Any] | None:
    """A copy that shares nothing with the caller's: {kind: text}, or {"choice": tuple of texts}; a schema is text."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or len(value) != 1:
        raise UserError(
            f"structured_outputs={value!r:.200} must be a dict with one of {', '.join(KINDS)}.", hint=_EXAMPLE
        )
    ((kind, given),) = value.items()
    if kind not in KINDS:
        raise UserError(f"structured_outputs has {kind!r}; it takes one of {', '.join(KINDS)}.", hint=_EXAMPLE)
    if kind == "json":
        return {kind: _schema_text(given)}
    if kind == "choice":
        return {kind: _choices(given)}
    if not isinstance(given, str) or not given:
        raise UserError(f"structured_outputs: {kind}={given!r:.200} must be a text that is not empty.", hint=_EXAMPLE)
    return {kind: given}


def _schema_text(given: Any) -> str:
    """The schema as JSON text, its properties in their order."""
    try:
        schema = json.loads(given) if isinstance(given, str) else given
        if schema is True:
            schema = {"type": "object"}
        if not isinstance(schema, Mapping):
            raise UserError(
                f"structured_outputs: json={given!r:.200} is not a JSON schema, which is an object.",
                hint="Give a dict, its JSON text, or True for any JSON object.",
            )
        return json.dumps(dict(schema), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"structured_outputs: json={given!r:.200} is not valid JSON: {error!s:.200}.",
            hint="Give a dict, its JSON text, or True for any JSON object.",
        ) from None


def _choices(given: Any) -> tuple[str, ...]:
    texts = tuple(given) if isinstance(given, list | tuple) else ()
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise UserError(
            f"structured_outputs: choice={given!r:.200} must be a list of texts, none of them empty.", hint=_EXAMPLE
        )
    return texts
