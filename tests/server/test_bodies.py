"""Bodies are strict JSON within their limits (bodies.py)."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route
from starlette.testclient import TestClient

from nano_llama.server.app import create_app
from nano_llama.server.bodies import HeldBodies, check_depth, parse_object, read_json, without_pictures
from nano_llama.server.errors import ApiError, json_response
from nano_llama.server.service import Service
from nano_llama.server.settings import ServerSettings


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"text"', b"null", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1}x', b'\xff\xfe{"a": 1}',
     b'{"a": "\xe9"}', rb'{"a": "\ud800"}', rb'{"\uDfff": 1}', b'{"a": ' + b"9" * 5000 + b"}", b'\xef\xbb\xbf{"a": 1}'],
)  # fmt: skip
def test_what_is_not_a_json_object_is_refused(body):
    with pytest.raises(ApiError) as raised:
        parse_object(body, 128)
    assert (raised.value.status, raised.value.code) == (400, "invalid_json")


def test_a_number_that_is_too_long_is_said_in_our_words():
    with pytest.raises(ApiError, match="a number has too many digits"):
        parse_object(b'{"a": ' + b"9" * 5000 + b"}", 128)


@pytest.mark.parametrize(("coding", "status"), [("gzip", 415), ("br, gzip", 415), ("Identity", 400), (None, 400)])
def test_a_compressed_body_is_refused_as_such(coding, status):
    with TestClient(create_app(Service(ServerSettings(), ["tiny"])), base_url="http://localhost") as client:

        async def read(request):
            return json_response(await read_json(request))

        client.app.router.routes.append(Route("/health/body", read, methods=["POST"]))
        client.app.state.service.opened(SimpleNamespace(failure=None))  # this route asks it for nothing
        headers = {} if coding is None else {"content-encoding": coding}
        answer = client.post("/health/body", content=b"\x1f\x8b\x08", headers=headers)
    assert answer.status_code == status
    assert status != 415 or coding in answer.json()["error"]["message"]


@pytest.mark.parametrize("text", ["\U0001f600", "\x00", '"', "\\", "[" * 200, "é\u2028"])
def test_any_text_comes_through(text):
    assert parse_object(json.dumps({"a": text}).encode(), 3) == {"a": text}
    assert parse_object(json.dumps({"a": text}, ensure_ascii=False).encode(), 3) == {"a": text}


def depth(value) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(
    st.recursive(
        st.text(alphabet='[]{}"\\a', max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[{"\\', max_size=3), inner),
    )
)
def test_depth_is_that_of_the_value(value):
    body = json.dumps(value).encode()
    check_depth(body, depth(value))
    if depth(value):
        with pytest.raises(ApiError, match="max_json_depth"):
            check_depth(body, depth(value) - 1)


PICTURE = "data:image/png;base64,"


@given(
    st.recursive(
        st.lists(st.sampled_from([PICTURE, "data:image", '"', "\\", "/", "[", "}", "a"]), max_size=6).map("".join),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([PICTURE, "b", '"']), inner),
    ),
    st.booleans(),
)
def test_without_pictures_the_body_has_the_same_values(value, slashes_escaped):
    """Each string is the same, or the beginning of what it was; whatever texts say about pictures."""
    body = json.dumps(value)
    body = body.replace("/", "\\/") if slashes_escaped else body
    rest = without_pictures(body.encode())
    check_depth(body.encode(), depth(value))
    assert same_but_for_pictures(json.loads(rest), value)


def same_but_for_pictures(short, value) -> bool:
    if isinstance(value, str):
        return short == value or (value.startswith("data:image") and short == "data:image")
    if isinstance(value, list):
        return len(short) == len(value) and all(map(same_but_for_pictures, short, value))
    # two keys that are pictures would become one: nobody reads a body with such keys
    return all(any(same_but_for_pictures(name, key) for key in value) for name in short)


def test_a_picture_does_not_count_and_a_text_about_it_does():
    long = PICTURE + "A" * 5000
    assert len(without_pictures(json.dumps({"a": [long, {"b": long}]}).encode())) < 60
    assert len(without_pictures(json.dumps({"a": long}).replace("/", "\\/").encode())) < 60, "as PHP writes it"
    for text in (f'see "{long}"', f"a {long}", long[5:]):
        body = json.dumps({"a": text}).encode()
        assert without_pictures(body) == body
    for damaged in (b'"data:image' * 1000, b'"data:image' + b"\\" * 1000, b'"data:image'):
        assert without_pictures(damaged).startswith(b'"data:image')


def test_bytes_are_held_until_the_end_of_the_block_and_no_more_than_the_limit():
    held = HeldBodies(100)
    with pytest.raises(ApiError, match="max_held_bytes=100") as raised, held.share() as one, held.share() as other:
        one(60)
        other(40)
        assert held.bytes == 100
        other(1)
    assert raised.value.status == 429 and raised.value.headers["Retry-After"] and held.bytes == 0


@pytest.mark.parametrize("body", [b"[" * 1_000_000, b'{"a":' * 200_000, b'"' + b"\\" * 1_000_001, b'"[' * 300_000])
def test_hostile_nesting_is_found_or_harmless(body):
    with pytest.raises(ApiError):
        parse_object(body, 128)
