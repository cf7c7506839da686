"""Three volumes, one number: what the view shows is what the server computed, and the lines are the package's."""

from pathlib import Path

import pytest

import nano_llama
from helpers.page import unfold

pytestmark = pytest.mark.page
STATE = {"prompt": "the quick brown", "run": 1, "max_tokens": 8, "seed": 7, "at": 5, "view": "volumes"}
ROOT = Path(nano_llama.__file__).parent.parent


def asked(opened, at=5):
    body = {"prompt": STATE["prompt"], "max_tokens": 8, "seed": 7, "temperature": 0.8, "return_token_ids": True}
    written = opened.ask("/v1/completions", body)["choices"][0]
    tokens, token = [*written["prompt_token_ids"], *written["token_ids"][:at]], written["token_ids"][at]
    return token, opened.ask("/inspect/volumes", {"tokens": tokens, "token": token})


def logits(page):
    return [float(cell.text_content()) for cell in page.locator(".number-by .big").all()]


def test_the_numbers_are_the_servers(opened):
    page = opened.go(**STATE)
    page.locator(".number-by").wait_for()
    token, answer = asked(opened)
    place, volumes = answer["ids"].index(token), answer["volumes"]
    assert logits(page) == pytest.approx([volume["logits"][place] for volume in volumes.values()], abs=6e-7)
    rows = page.locator("nl-volumes .twin tbody tr")
    assert [int(row.locator("td").nth(1).text_content()) for row in rows.all()] == answer["ids"]
    for at, volume in enumerate(volumes.values()):
        shown = [float(row.locator("td").nth(2 + at).text_content()) for row in rows.all()]
        assert shown == pytest.approx(volume["logits"], abs=6e-7)
    for name in ("engine", "volume2"):
        kl = page.locator(f"nl-volumes p[data-volume={name}]").get_attribute("data-kl")
        assert float(kl) == volumes[name]["kl"]
    less = [float(cell.get_attribute("data-less")) for cell in page.locator(".less td:nth-child(2)").all()]
    expected = [a - b for a, b in zip(volumes["engine"]["logits"], volumes["volume1"]["logits"], strict=True)]
    assert less == pytest.approx(expected)
    widths = [float(bar.get_attribute("width").strip("%")) for bar in page.locator(".less rect.engine").all()]
    most = max(abs(x - y) for name in ("engine", "volume2")
               for x, y in zip(volumes[name]["logits"], volumes["volume1"]["logits"], strict=True))  # fmt: skip
    assert widths == pytest.approx([50 * abs(d) / most for d in expected], abs=1e-3)


def test_another_token_by_keyboard(opened):
    page = opened.go(**STATE)
    first = page.locator(".less button").first
    first.wait_for()
    first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    answer = asked(opened)[1]
    opened.follow().locator(".number-by").wait_for()
    assert logits(page) == pytest.approx([volume["logits"][1] for volume in answer["volumes"].values()], abs=6e-7)


@pytest.mark.parametrize(("view", "stage"), {"volumes": "swiglu", "lens": "logits", "attention": "softmax",
                                             "attribution": "contributions"}.items())  # fmt: skip
def test_the_lines_are_those_of_the_package(opened, view, stage):
    page = opened.go(**{**STATE, "view": view})
    unfold(page.locator(f"nl-{view} .source"))
    page.locator(f".source [data-stage={stage}]").wait_for()
    stages = {stage["name"]: stage for stage in opened.ask("/inspect/source")["stages"]}
    for figure in page.locator(".source figure").all():
        stage = stages[figure.get_attribute("data-stage")]
        code = figure.locator("pre").text_content()
        assert code == stage["code"]
        written = (ROOT / stage["file"]).read_text().splitlines()[stage["line"] - 1]
        assert written.strip() == code.splitlines()[0]


def test_a_server_that_is_busy_is_asked_again(opened):
    page = opened.page
    answers = [429, 200]

    def answer(route):
        if answers.pop(0) == 429:
            return route.fulfill(status=429, json={"error": {"message": "busy", "code": "busy"}})
        return route.continue_()

    page.route("**/inspect/volumes", answer)
    opened.go(**STATE)
    page.locator(".number-by").wait_for()
    assert not answers
    opened.faults.clear()  # the browser notes the status 429
