"""Host, Origin and CORS: what keeps foreign web pages out, and lets programs and our own pages in (hosts.py)."""

import socket

import pytest
from starlette.testclient import TestClient

from helpers.served import Served, read_all
from nano_llama.server.app import create_app
from nano_llama.server.hosts import host_name, is_loopback
from nano_llama.server.service import Service
from nano_llama.server.settings import ServerSettings


def client_of(**settings) -> TestClient:
    return TestClient(create_app(Service(ServerSettings(**settings), ["tiny"])), base_url="http://localhost:8000")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "127.0.0.1:8000",
        "[::1]:8000",
        "192.168.1.7",
        "models.example",
        socket.gethostname(),
    ],
)
def test_names_of_ours(host):
    answer = client_of(allowed_hosts=("Models.example",)).get("/version", headers={"host": host})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "", "a:b:c", "[evil"]
)
def test_foreign_names(host):
    answer = client_of().get("/version", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost:8000/version", "localhost:8000", 200),
        ("HTTP://LOCALHOST/version?a=/b", "evil.example", 200),  # the URL's host is the one that counts
        ("http://evil.example/version", "localhost", 403),
        ("http://localhost", "localhost", 200),  # the page
    ],
)
def test_a_whole_url_as_the_target(target, host, status):
    with Served() as served:
        raw = served.connect(f"GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        assert read_all(raw).startswith(b"HTTP/1.1 %d " % status)


def test_all_hosts_if_told():
    assert client_of(allowed_hosts=("*",)).get("/version", headers={"host": "any.example"}).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 405),  # there is no POST there; it came through
        ("http://localhost:8000", 405),
        ("https://page.example", 405),
        ("http://localhost:3000", 403),
        ("http://localhost.evil.example:8000", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_pages_of_other_origins_may_not_post(origin, status):
    headers = {} if origin is None else {"origin": origin}
    answer = client_of(cors_origins=("https://page.example",)).post("/version", headers=headers)
    assert answer.status_code == status


def test_an_allowed_origin_may_read_and_others_may_not():
    client = client_of(cors_origins=("https://page.example",))
    allowed = client.get("/version", headers={"origin": "https://page.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://page.example"
    assert allowed.headers["vary"] == "Origin"
    other = client.get("/version", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers and other.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in client_of().get("/version").headers


def test_a_preflight_needs_no_key():
    client = client_of(cors_origins=("https://page.example",), api_key_digests=(b"x" * 32,))
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-a"}
    answer = client.options("/v1/completions", headers={"origin": "https://page.example", **asked})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    assert answer.headers["access-control-allow-headers"] == "authorization,x-a"
    other = client.options("/v1/completions", headers={"origin": "https://other.example", **asked})
    assert other.status_code == 403 and "access-control-allow-origin" not in other.headers
    assert other.json()["error"]["code"] == "origin_not_allowed"


def test_every_answer_has_the_security_headers():
    for path in ("/version", "/nothing"):
        headers = client_of().get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("header", "name"), [("Example.com:8000", "example.com"), ("[::1]:8000", "::1"), ("[::1]", "::1"), ("a", "a")]
)
def test_host_name(header, name):
    assert host_name(header) == name


@pytest.mark.parametrize(
    ("host", "answer"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x.y", False)],
)
def test_is_loopback(host, answer):
    assert is_loopback(host) is answer
