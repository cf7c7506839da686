"""Bodies are strict JSON within their limits (bodies.py)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nano_llama.server.bodies import check_depth, parse_object
from nano_llama.server.errors import ApiError


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"text"', b"null", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1}x', b'\xff\xfe{"a": 1}',
     b'{"a": "\xe9"}', rb'{"a": "\ud800"}', rb'{"\uDfff": 1}', b'{"a": ' + b"9" * 5000 + b"}", b'\xef\xbb\xbf{"a": 1}'],
)  # fmt: skip
def test_what_is_not_a_json_object_is_refused(body):
    with pytest.raises(ApiError) as raised:
        parse_object(body, 128)
    assert (raised.value.status, raised.value.code) == (400, "invalid_json")


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


@pytest.mark.parametrize("body", [b"[" * 1_000_000, b'{"a":' * 200_000, b'"' + b"\\" * 1_000_001, b'"[' * 300_000])
def test_hostile_nesting_is_found_or_harmless(body):
    with pytest.raises(ApiError):
        parse_object(body, 128)
