"""Pictures that are not meant well, sent to a running `nano-llama serve nano_eyes`: each gets a clear error or the
right answer, and the next request is served.

Through the command: tests/cli/test_hostile_pictures.py. What decodes them: tests/core/vision/test_image_files.py.
"""

import base64

import pytest

pytest.importorskip("PIL.Image")

from helpers.hostile_pictures import PICTURES, PLAIN, SHOWN
from helpers.server_process import ServerProcess

pytestmark = pytest.mark.server
QUESTION = SHOWN.questions[0]


@pytest.fixture(scope="module")
def server():
    with ServerProcess(model="nano_eyes") as server:
        yield server
        server.is_well()


def url(data, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def ask(server, *addresses):
    """-> (status, JSON) of the question about pictures."""
    parts = [{"type": "image_url", "image_url": {"url": address}} for address in addresses]
    content = [*parts, {"type": "text", "text": QUESTION.text}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 8, "temperature": 0}
    return server.request("POST", "/v1/chat/completions", body)


def answer(server, *addresses):
    status, reply = ask(server, *addresses)
    assert status == 200, reply
    return reply["choices"][0]["message"]["content"].strip()


def refusal(server, *addresses):
    status, reply = ask(server, *addresses)
    assert status == 400, reply
    assert reply["error"]["param"] == f"messages[0].content[{len(addresses) - 1}].image_url.url"
    assert "Traceback" not in reply["error"]["message"] and len(reply["error"]["message"]) < 400
    return reply["error"]["message"]


@pytest.fixture(autouse=True)
def the_next_request_is_served(server):
    yield
    assert answer(server, url(PLAIN)) == QUESTION.answer


@pytest.mark.parametrize("name", PICTURES)
def test_a_clear_error_or_the_right_answer(server, name):
    data, expected = PICTURES[name]
    if isinstance(expected, str):
        assert expected in refusal(server, url(PLAIN), url(data))
    else:
        assert answer(server, url(data)) == answer(server, url(expected))


ADDRESSES = {
    "base64 that is none": ("data:image/png;base64,A$$$", "is not valid base64"),
    "base64 with a character too few": (url(PLAIN)[:-5], "is not valid base64"),
    "not base64": ("data:image/png,%89PNG", "Send the picture itself: data:image/png;base64,"),
    "another kind of data": (url(PLAIN, "text/html"), "Send the picture itself"),
    "a kind that never ends": (url(PLAIN, "image/" + "x" * 10_000), "Send the picture itself"),
    "http": ("http://127.0.0.1:9/picture.png", "this server fetches nothing, so http URLs are not read"),
    "https": ("https://example.org/picture.png", "this server fetches nothing, so https URLs are not read"),
    "a file": ("file:///etc/passwd", "Send the picture itself"),
    "nothing": ("", "Send the picture itself"),
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_an_address_that_is_not_a_pictures(server, name):
    address, says = ADDRESSES[name]
    assert says in refusal(server, url(PLAIN), address)


def test_a_picture_under_another_formats_name(server):
    """What counts is what it is."""
    assert answer(server, url(PICTURES["cmyk"][0], "image/png")) == QUESTION.answer
    assert answer(server, url(PLAIN, "image/webp")) == QUESTION.answer


def test_too_many_and_too_large(server):
    status, reply = ask(server, *[url(PLAIN)] * 60)
    assert status == 400 and reply["error"]["code"] == "context_length_exceeded"
    assert answer(server, url(PLAIN + bytes(2**20))) == QUESTION.answer, "longer than a text may be"
    status, reply = ask(server, url(PLAIN + bytes(16 * 2**20)))
    assert status == 413 and "max_image_bytes" in reply["error"]["message"]


@pytest.mark.parametrize("long", ["text", "parts", "urls"])
def test_a_long_body_that_is_not_pictures(server, long):
    """It is refused before its values are made, whatever it says of pictures elsewhere."""
    many = {"text": "data:text" * 10**6, "parts": [[]] * 10**6, "urls": [{"url": "data:image/png;base64,A"}] * 10**5}
    content = [{"type": "image_url", "image_url": {"url": url(PLAIN)}}, many[long]]
    status, reply = server.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]})
    assert status == 413 and "The body without its pictures has" in reply["error"]["message"]
