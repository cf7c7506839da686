"""`chat` with pictures: /image attaches them to the next message, and the model reads them."""

import io
import json
import shutil

import numpy as np
import pytest

from nano_llama import LLM, SamplingParams

Image = pytest.importorskip("PIL.Image")

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{% for part in m.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}\n{% endfor %}me:"
)


@pytest.fixture(scope="module")
def model(tiny_model_with_eyes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat-eyes") / "m"
    shutil.copytree(tiny_model_with_eyes, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two files, and what stands in them."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = [np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8) for seed in range(2)]
    files = [folder / f"{number}.png" for number in range(2)]
    for file, values in zip(files, pixels, strict=True):
        Image.fromarray(values).save(file)
    return files, pixels


@pytest.fixture
def talk(cli, model, monkeypatch):
    def run(*lines, model=model):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        options = ("--engine", "numpy", "--temperature", 0, "--max-tokens", 4)
        return cli("chat", "--model", model, *options, "--json")

    return run


def user(text, *images):
    parts = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}] if images else text}


def test_answers_are_those_of_llm_chat(talk, model, pictures, tmp_path):
    (one, two), (first, second) = pictures
    saved = tmp_path / "chat.json"
    done = talk(f"/image {one}", f"/image {two}", "/image", "what?", "and now?", "/edit where?", f"/save {saved}")
    assert done.code == 0 and f"With your next message: {one}, {two}" in done.err, done.shown
    messages = done.json["messages"]
    assert messages[0] == user("what?", str(one), str(two)) and messages[2] == user("where?")
    assert json.loads(saved.read_text())["messages"] == messages
    again = talk(f"/load {saved}", "/edit where?")
    assert again.json["messages"] == messages
    params = SamplingParams(temperature=0.0, max_tokens=4)
    with LLM(model, runner="numpy") as llm:
        heard = [user("what?", first, second)]
        assert llm.chat(heard, params)[0].text == messages[1]["content"]
        heard += [{"role": "assistant", "content": messages[1]["content"]}, user("where?")]
        assert llm.chat(heard, params)[0].text == messages[3]["content"]


def test_an_edited_message_keeps_its_pictures_and_others_can_be_dropped(talk, pictures):
    (one, two), _ = pictures
    done = talk(f"/image {one}", "what?", f"/image {two}", "/image -", "/edit which?", f"/image {two}", "/new", "so?")
    assert done.code == 0 and "No picture goes with your next message" in done.err
    assert done.json["messages"][0] == user("so?"), "a new conversation begins without pictures"
    done = talk(f"/image {one}", "what?", "/edit which?")
    assert done.json["messages"][0] == user("which?", str(one))


def test_what_is_no_picture_is_said_at_once(talk, tmp_path, pictures):
    text = tmp_path / "text.png"
    text.write_text("hello")
    done = talk(f"/image {text}", f"/image {tmp_path / 'none.png'}", "what?")
    assert done.code == 0 and "is not an image that is read here" in done.err and "Image not found" in done.err
    assert done.json["messages"][0] == user("what?")


def test_a_model_of_text_refuses_them(talk, tiny_chat_model, pictures):
    done = talk(f"/image {pictures[0][0]}", "hello", model=tiny_chat_model)
    assert done.code == 0 and "this model reads text only" in done.err and "Idefics3" in done.err
    assert done.json["messages"][0] == user("hello")
