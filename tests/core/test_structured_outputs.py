"""SamplingParams(structured_outputs=...): every form, and what is refused before there is a model."""

import json

import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams


def held(value):
    return SamplingParams(structured_outputs=value).structured_outputs


def test_each_form_is_held_in_one_shape():
    schema = {"type": "object", "properties": {"b": {}, "a": {"const": "é"}}}
    assert held(None) is None
    assert (
        json.loads(held({"json": schema})["json"]) == json.loads(held({"json": json.dumps(schema)})["json"]) == schema
    )
    assert list(json.loads(held({"json": schema})["json"])["properties"]) == ["b", "a"], "properties keep their order"
    assert held({"json": True}) == held({"json": "true"}) == held({"json": {"type": "object"}})
    assert held({"choice": ["a", "b"]}) == held({"choice": ("a", "b")}) == {"choice": ("a", "b")}
    assert held({"regex": "a+"}) == {"regex": "a+"} and held({"grammar": "start: x"}) == {"grammar": "start: x"}


def test_it_is_a_copy_and_survives_replace():
    schema = {"type": "object"}
    params = SamplingParams(structured_outputs={"json": schema})
    schema["type"] = "array"
    assert json.loads(params.structured_outputs["json"]) == {"type": "object"}
    for value in ({"json": schema}, {"choice": ["a"]}, {"regex": "a"}, {"grammar": "start: x"}):
        params = SamplingParams(structured_outputs=value)
        assert params.replace(max_tokens=3).structured_outputs == params.structured_outputs


circular: dict = {}
circular["properties"] = {"a": circular}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("json", "must be a dict with one of json, regex, choice, grammar"),
        ({}, "must be a dict with one of"),
        ({"json": {}, "regex": "a"}, "must be a dict with one of"),
        ({"json_object": True}, "'json_object'"),
        ({"json": "{"}, "not valid JSON"),
        ({"json": False}, "not a JSON schema"),
        ({"json": None}, "not a JSON schema"),
        ({"json": "3"}, "not a JSON schema"),
        ({"json": [{}]}, "not a JSON schema"),
        ({"json": {"const": float("nan")}}, "not valid JSON"),
        ({"json": {"const": {1, 2}}}, "not valid JSON"),
        ({"json": circular}, "not valid JSON"),
        ({"json": "[" * 100_000}, "not valid JSON"),
        ({"regex": ""}, "not empty"),
        ({"regex": b"a"}, "must be a text"),
        ({"grammar": 3}, "must be a text"),
        ({"choice": []}, "list of texts"),
        ({"choice": "yes"}, "list of texts"),
        ({"choice": ["a", ""]}, "none of them empty"),
        ({"choice": ["a", 1]}, "list of texts"),
    ],
)
def test_what_is_refused(value, message):
    with pytest.raises(UserError, match=message) as caught:
        SamplingParams(structured_outputs=value)
    assert "structured_outputs" in caught.value.message and caught.value.hint
