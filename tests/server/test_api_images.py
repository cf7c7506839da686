"""image_url parts of /v1/chat/completions: data URLs are read, all else is refused with the place and the reason."""

import base64

import numpy as np
import pytest

from helpers.api import served
from nano_llama import LLM, SamplingParams, Tokenizer
from nano_llama.server import images
from nano_llama.tokenizer.image_token import with_image_token

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("torch")

from helpers.hostile_pictures import encoded, png  # noqa: E402
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
    "more pixels than are decoded": (data_url(png(5_000, 5_000)), "5,000 x 5,000 pixels, more than 16,000,000"),
    "svg": ("data:image/svg+xml;base64," + base64.b64encode(b"<svg xmlns='x'/>").decode(), "is not an image"),
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
    assert client.post(CHAT, json=ask(image(PNG + "A" * 2**20))).status_code == 413


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
