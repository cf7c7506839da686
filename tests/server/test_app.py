"""The routes that need no model, and what each failure looks like (app.py, service.py)."""

import asyncio
from types import SimpleNamespace

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from nano_llama.core.errors import ContextLengthError, EngineOverloaded, UserError
from nano_llama.core.version import VERSION
from nano_llama.server.app import PATIENT_PATH, Entrance, create_app
from nano_llama.server.service import Service
from nano_llama.server.settings import ServerSettings


def client(loaded: bool = True) -> TestClient:
    service = Service(ServerSettings(), ["tiny"])
    if loaded:
        service.opened(SimpleNamespace(failure=None))  # no route here asks it for anything else
    return TestClient(create_app(service), base_url="http://localhost")


def test_version():
    assert client().get("/version").json() == {"version": VERSION}


def test_health_says_that_the_model_is_loading():
    answer = client(loaded=False).get("/health")
    assert (answer.status_code, answer.json()) == (503, {"status": "loading"})


def test_who_waits_for_the_model_is_woken():
    """By the model, at once, and not by a clock: no time passes here."""

    async def wait() -> None:
        service = Service(ServerSettings(), ["tiny"])
        waiting = asyncio.create_task(Entrance(create_app(service), service).check_state(PATIENT_PATH))
        for opened in (False, True):
            if opened:
                service.opened(SimpleNamespace(failure=None))
            for _ in range(10):
                await asyncio.sleep(0)
            assert waiting.done() == opened
        await waiting

    asyncio.run(wait())


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/v1/nothing", 404, "unknown_url"), ("DELETE", "/health", 405, "method_not_allowed"),
     ("POST", "/v1/completions/", 404, "unknown_url")],
)  # fmt: skip
def test_what_the_framework_refuses_has_openai_s_shape(method, path, status, code):
    answer = client().request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == code


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UserError("n=0 must be at least 1.", hint="Raise it."), 400, None),
        (ContextLengthError("too long", prompt_tokens=9, max_tokens=1, context=8), 400, "context_length_exceeded"),
        (EngineOverloaded("full", retry_after=2.3), 429, "overloaded"),
    ],
)
def test_errors_of_the_engine_have_a_status(error, status, code):
    def fail(request):
        raise error

    asked = client()
    asked.app.router.routes.append(Route("/fail", fail))
    answer = asked.get("/fail")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("retry-after") == ("3" if status == 429 else None)
