"""The OpenAPI document (openapi.py, openapi_answers.py): it names what is served, and answers have its shapes."""

import json

import pytest
from starlette.routing import Route

from helpers.api import post
from nano_llama.server.app import ROUTES
from nano_llama.server.openapi import BODIES, document
from nano_llama.server.schemas import Body

HI = [{"role": "user", "content": "Hi"}]


def test_it_names_every_api_route():
    api = {
        (route.path.replace(":path", ""), method.lower())
        for route in ROUTES
        if isinstance(route, Route) and route.path not in ("/openapi.json", "/metrics", "/v1/health")
        for method in route.methods - {"HEAD"}
    }
    assert {(path, method) for path, methods in document()["paths"].items() for method in methods} == api


def test_every_reference_leads_somewhere():
    text = json.dumps(document())
    schemas = document()["components"]["schemas"]
    named = {piece.split('"')[0] for piece in text.split('"#/components/schemas/')[1:]}
    assert named <= set(schemas) and {body.__name__ for body in BODIES} <= set(schemas)
    assert set(BODIES) == {kind for kind in all_bodies(Body) if kind.__name__ in schemas}


def all_bodies(kind):
    for child in kind.__subclasses__():
        yield child
        yield from all_bodies(child)


def test_unknown_fields_are_unknown_here_too():
    for body in BODIES:
        schema = document()["components"]["schemas"][body.__name__]
        assert schema["additionalProperties"] is False
        assert not set(body.refused) & set(schema["properties"])


def check(answer, name: str) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document()["components"]}
    pytest.importorskip("jsonschema_rs").validate(schema, answer)


@pytest.mark.server
def test_answers_have_the_shapes(client):
    text = {"prompt": "the quick", "max_tokens": 3, "echo": True, "return_token_ids": True}
    check(post(client, "/v1/completions", **text), "Completion")
    check(post(client, "/v1/completions", **text, logprobs=2, truncate_prompt_tokens=2), "Completion")
    check(post(client, "/v1/completions", prompt="the", prompt_logprobs=1), "Completion")
    chat = {"messages": HI, "max_tokens": 3}
    check(post(client, "/v1/chat/completions", **chat), "ChatCompletion")
    check(post(client, "/v1/chat/completions", **chat, logprobs=True, top_logprobs=1, n=2), "ChatCompletion")
    check(post(client, "/v1/chat/completions/render", messages=HI), "Rendered")
    check(post(client, "/tokenize", prompt="the", return_token_strs=True), "Tokens")
    check(post(client, "/detokenize", tokens=[5]), "Text")
    for path, name in (
        ("/tokenizer_info", "TokenizerInfo"), ("/v1/models", "ModelList"), ("/v1/models/tiny", "Model"),
        ("/health", "Health"), ("/version", "Version"), ("/v1/models/none", "Error"), ("/nothing", "Error"),
    ):  # fmt: skip
        check(client.get(path).json(), name)
    check(post(client, "/v1/completions", 400, prompt=3), "Error")
    assert client.get("/openapi.json").json() == json.loads(json.dumps(document()))
