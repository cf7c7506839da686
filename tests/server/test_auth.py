"""API keys: where they are read, who comes in (auth.py)."""

from types import SimpleNamespace

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from nano_llama.core.errors import UserError
from nano_llama.server.app import create_app
from nano_llama.server.auth import digest_of, read_keys
from nano_llama.server.errors import json_response
from nano_llama.server.service import Service
from nano_llama.server.settings import ServerSettings


def client_of(*keys: str) -> TestClient:
    service = Service(ServerSettings(api_key_digests=tuple(map(digest_of, keys))), ["tiny"])
    app = create_app(service)

    def salt(request):
        return json_response({"salt": service.cache_salt(request)})

    app.router.routes.append(Route("/version/salt", salt))
    service.opened(SimpleNamespace(failure=None))  # no route here asks it for anything else
    return TestClient(app, base_url="http://localhost")


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "path", ["/version", "/metrics", "/v1/models", "/nothing", "/version/salt", "/page", "/inspect/model", "/Health"]
)
@pytest.mark.parametrize(
    "headers",
    [{}, bearer(""), bearer("key-3"), bearer("key-1x"), {"authorization": "key-1"}, {"authorization": "Basic key-1"},
     {"authorization": "Bearer k\xe9y"}],
)  # fmt: skip
def test_without_a_known_key_nothing_is_answered(path, headers):
    answer = client_of("key-1", "key-2").get(path, headers={k: v.encode("latin-1") for k, v in headers.items()})
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/", "/page/main.js"])
def test_open_paths(path):
    assert client_of("key-1").get(path).status_code == 200


def test_each_key_opens_and_has_a_salt_of_its_own():
    client = client_of("key-1", "key-2")
    salts = [client.get("/version/salt", headers=bearer(key)).json()["salt"] for key in ("key-1", "key-2", "key-1")]
    assert salts[0] == salts[2] != salts[1] and all(salts)
    assert "key-1" not in salts[0]


def test_without_keys_any_key_will_do():
    assert client_of().get("/version/salt", headers=bearer("any")).json() == {"salt": None}


def test_keys_of_a_file(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\nkey-1\n\n  key-2  \n")
    assert read_keys(file) == (digest_of("key-1"), digest_of("key-2"))


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "two words\n", "schlüssel\n"])
def test_a_file_without_usable_keys_is_refused(tmp_path, text):
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(UserError) as raised:
        read_keys(file)
    assert "schl" not in str(raised.value)


def test_a_key_of_the_environment(monkeypatch):
    monkeypatch.setenv("NANO_LLAMA_API_KEY", "key-3")
    assert read_keys(None) == (digest_of("key-3"),)
    monkeypatch.delenv("NANO_LLAMA_API_KEY")
    assert read_keys(None) == ()
