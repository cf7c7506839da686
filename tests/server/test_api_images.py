"""image_url parts of /v1/chat/completions: data URLs are read, all else is refused with the place and the reason."""

import base64
import io

import numpy as np
import pytest

from helpers.api import served
from nano_llama import LLM, SamplingParams, Tokenizer
from nano_llama.server import images
from nano_llama.tokenizer.image_token import with_image_token

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("torch")

from helpers.hostile_pictures import encoded, held, png  # noqa: E402
from helpers.vision_models import picture, save_tiny  # noqa: E402

CHAT = "/v1/chat/completions"
TEMPLATE = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)


def url(pixels, format="PNG", **options):
    return data_url(encoded(pixels, format, **options), format)


def data_url(data, format="PNG"):
    return f"data:image/{format.lower()};base64," + base64.b64encode(data).decode()


def image(address):
    return {"type": "image_url", "image_url": {"url": address}}


def ask(*parts, **more):
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 6, "temperature": 0, **more}


@pytest.fixture(scope="module", params=["without a template", "with a template"])
def model(request, tmp_path_factory):
    words = Tokenizer.train_bpe(["what colour is the shape? red or blue <|endoftext|>"] * 3, 280)
    tokenizer = with_image_token(words)
    if request.param == "with a template":
        tokenizer = Tokenizer(tokenizer.backend, tokenizer.roles, {"default": TEMPLATE})
    folder = tmp_path_factory.mktemp("served") / "tiny"
    save_tiny(folder, tokenizer=tokenizer, vocab_size=words.vocab_size + 1, image_token_id=words.vocab_size)
    return folder


@pytest.fixture(scope="module")
def client(model):
    with served(LLM(model, runner="numpy", num_threads=1)) as client:
        yield client


def test_the_answer_is_the_engines(model, client):
    greedy = SamplingParams(temperature=0.0, max_tokens=6)
    with LLM(model, runner="numpy", num_threads=1) as llm:
        for pixels in (picture(1), picture(2), picture(3, size=20)):
            meant = llm.generate({"prompt": "<image>what colour?", "images": [pixels]}, greedy)[0]
            answer = client.post(CHAT, json=ask(image(url(pixels)), "what colour?")).json()
            assert answer["choices"][0]["message"]["content"] == meant.text
            assert answer["usage"]["prompt_tokens"] == len(meant.prompt_token_ids)
        two = llm.generate({"prompt": "<image>red <image>", "images": [picture(1), picture(2)]}, greedy)[0]
    parts = image(url(picture(1))), "red ", image(url(picture(2)))
    assert client.post(CHAT, json=ask(*parts)).json()["choices"][0]["message"]["content"] == two.text


PNG = url(picture(1))
BAD = {
    "fetched": ("https://example.org/a.png", "fetches nothing, so https URLs are not read"),
    "plain http": ("HTTP://localhost/a.png", "fetches nothing"),
    "a path": ("/etc/passwd", "Send the picture itself"),
    "a file": ("file:///etc/passwd", "Send the picture itself"),
    "not an image": ("data:text/html;base64,AAAA", "Send the picture itself"),
    "not base64": ("data:image/png;base64,A$", "not valid base64"),
    "no bytes": ("data:image/png;base64,", "is empty"),
    "no picture": ("data:image/png;base64,AAAA", "is not an image"),
    "animated": (url(picture(1), "GIF", save_all=True, append_images=[Image.fromarray(picture(2))]), "an animation"),
    "more pixels than are decoded": (data_url(png(6_000, 6_000)), "6,000 x 6,000 pixels, more than 32,000,000"),
    "svg": ("data:image/svg+xml;base64," + base64.b64encode(b"<svg xmlns='x'/>").decode(), "in the format SVG"),
    "truncated": (url(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[:4022], "is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused_by_its_place(client, name):
    address, says = BAD[name]
    answer = client.post(CHAT, json=ask(image(PNG), "a", image(address)))
    error = answer.json()["error"]
    assert answer.status_code == 400 and says in error["message"], error
    assert error["param"] == "messages[0].content[2].image_url.url" and error["type"] == "invalid_request_error"


def test_limits(client, monkeypatch):
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 63)
    error = client.post(CHAT, json=ask(image(PNG))).json()["error"]
    assert "8 x 8 pixels, more than 63" in error["message"] and error["param"].endswith("image_url.url")
    monkeypatch.undo()
    answer = client.post(CHAT, json=ask(*[image(PNG)] * 60))  # 240 tokens
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"


def photograph(width=4000, height=3000):
    """A JPEG as a phone takes it: 12 million pixels, red above and blue below when it is held as its EXIF says."""
    pixels = np.random.default_rng(0).integers(0, 120, (height, width, 1), np.uint8).repeat(3, -1)
    pixels[:, : width // 2, 2] += 120  # on its side: what is above lies on the right
    pixels[:, width // 2 :, 0] += 120
    return encoded(pixels, "JPEG", quality=88, exif=held(8))


@pytest.mark.slow  # millions of pixels are drawn, compressed and decoded
def test_a_phones_photograph(model, client):
    """Megabytes, turned as EXIF says; nothing of it is held once it has been answered, and the rest is not longer."""
    data = photograph()
    assert 4e6 < len(data) < 12e6 and np.array_equal(Image.open(io.BytesIO(data)).size, (4000, 3000))
    answer = client.post(CHAT, json=ask(image(data_url(data, "JPEG")), "what colour?"))
    assert answer.status_code == 200, answer.text
    upright = Image.open(io.BytesIO(data)).convert("RGB").transpose(Image.Transpose.ROTATE_90)
    with LLM(model, runner="numpy", num_threads=1) as llm:
        greedy = SamplingParams(temperature=0.0, max_tokens=6)
        [meant] = llm.generate({"prompt": "<image>what colour?", "images": [np.asarray(upright)]}, greedy)
    assert answer.json()["choices"][0]["message"]["content"] == meant.text
    assert client.app.state.service.held.bytes == 0


def test_pictures_have_a_limit_of_their_own(model):
    """What is not a picture keeps the limit of a body, and a model of text has no other."""
    small = {"max_body_bytes": 2000, "max_image_bytes": 5000, "max_held_bytes": 7000}
    with served(LLM(model, runner="numpy", num_threads=1), **small) as client:

        def refused(body):
            answer = client.post(CHAT, json=body)
            assert answer.status_code == 413 and answer.json()["error"]["code"] == "body_too_large"
            assert client.app.state.service.held.bytes == 0
            return answer.json()["error"]["message"]

        noise = url(np.random.default_rng(0).integers(0, 256, (34, 34, 3), np.uint8))
        assert 4000 < len(noise) < 5000
        assert client.post(CHAT, json=ask(image(noise))).status_code == 200
        assert "without its pictures" in refused(ask(image(noise), "a" * 2000))
        assert "(max_image_bytes)" in refused(ask(image(noise), image(noise[:1500])))
        assert "The body exceeds 7,000 bytes" in refused(ask(image(noise), image(noise)))
        answer = client.post("/v1/completions", json={"prompt": "a" * 2000})
        assert answer.status_code == 413, "only a chat has pictures"
    with served(LLM("nano_gpt", runner="numpy", num_threads=1), **small) as client:
        assert "exceeds 2,000 bytes (max_body_bytes)" in refused(ask(image(noise)))


def test_bodies_that_would_not_fit_together_wait_outside(client):
    service = client.app.state.service
    with service.held.share() as hold:
        hold(service.settings.max_held_bytes - 100)
        answer = client.post(CHAT, json=ask(image(PNG)))
    assert answer.status_code == 429 and "max_held_bytes" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"] == "1"
    assert client.post(CHAT, json=ask(image(PNG))).status_code == 200


@pytest.mark.parametrize(
    ("more", "path", "says"),
    [({"truncate_prompt_tokens": 5}, CHAT, "not truncated"), ({}, f"{CHAT}/render", "only /v1/chat/completions")],
)
def test_what_does_not_go_with_images(client, more, path, says):
    body = ask(image(PNG), **more)
    if path != CHAT:
        body = {"messages": body["messages"]}
    error = client.post(path, json=body).json()["error"]
    assert says in error["message"] and error["param"] == "messages[0].content[0].type"


def test_a_model_of_text_refuses_images():
    with served(LLM("nano_gpt", runner="numpy", num_threads=1)) as client:
        error = client.post(CHAT, json=ask("a", image(PNG))).json()["error"]
        assert "reads text only" in error["message"] and error["param"] == "messages[0].content[1].type"


@pytest.mark.parametrize("length", [1, 2, 3, images.PIECE * 3 // 4, images.PIECE * 3 // 4 + 1, 500_001])
def test_base64_in_pieces(length):
    data = np.random.default_rng(0).bytes(length)
    text = base64.b64encode(data).decode()
    assert images._from_base64(text) == data == base64.b64decode(text)
    assert images._from_base64("") == b""
    for damaged in (text + "A", "AA==" + text, "*" + text, text[:-1] + "é"):
        with pytest.raises(ValueError):
            images._from_base64(damaged)
