"""Why this token: what the page computes at once is what the server computes over its whole vocabulary."""

import pytest

from nano_llama.core.sampling.philox import uniform

pytestmark = pytest.mark.page
STATE = {"prompt": "the quick brown", "run": 1, "max_tokens": 8, "seed": 7, "at": 5, "view": "why"}
# With these, few tokens are left, and all of them are listed: there the page's own numbers are exact.
FEW = [
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.3, "top_k": 40, "top_p": 0.6},
    {"temperature": 1, "min_p": 0.05, "top_k": 30},
    {"temperature": 0.8, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.25, "top_k": 20},
    {"temperature": 0},
]
PAGE = """async ([answer, settings, prompt, output]) => {
    const made = await import("/page/views/why.js");
    const defaults = {temperature: 0.8, min_p: 0, top_k: 0, top_p: 1};
    Object.assign(defaults, {repetition_penalty: 1, presence_penalty: 0, frequency_penalty: 0});
    const own = made.estimated(answer.here, {...defaults, ...settings}, prompt, output).at(-1).p;
    const theirs = made.confirmed(answer.there, settings.temperature);
    const {parts, hit} = made.bar(answer.here.top.ids, own, made.uniform(7, answer.here.position));
    return {own, theirs: theirs.map(step => [step.name, step.p]), token: answer.here.top.ids[parts[hit].i]};
}"""


def position(opened, **settings):
    """What stands before the token that is opened, as /inspect/next takes it; and all ids that were written."""
    body = {
        "prompt": STATE["prompt"],
        "max_tokens": 8,
        "seed": 7,
        "temperature": 0.8,
        "return_token_ids": True,
        **settings,
    }
    written = opened.ask("/v1/completions", body)["choices"][0]
    return {"prompt": written["prompt_token_ids"], "output": written["token_ids"][:5], "seed": 7}, written["token_ids"]


@pytest.mark.parametrize("settings", FEW)
def test_the_pages_numbers_are_the_servers(opened, settings):
    page = opened.go()
    body, _ = position(opened)
    answers = {
        "here": opened.ask("/inspect/next", {**body, "temperature": 0.8}),
        "there": opened.ask("/inspect/next", {**body, **settings}),
    }
    made = page.evaluate(PAGE, [answers, settings, body["prompt"], body["output"]])
    top = answers["there"]["top"]
    known = dict(zip(top["ids"], top["p"], strict=True))
    assert made["own"] == pytest.approx([known[number] for number in answers["here"]["top"]["ids"]], abs=1e-6)
    assert made["theirs"][-1][1] == pytest.approx(top["p"], abs=1e-9)
    assert [name for name, _ in made["theirs"]] == ["model", *(cut["name"] for cut in answers["there"]["cuts"])]
    for name, p in made["theirs"]:
        assert sum(p) <= 1 + 1e-6, name
    if settings["temperature"]:
        assert made["token"] == answers["there"]["draw"]["token"]


def test_the_random_numbers_are_the_servers(opened):
    page = opened.go()
    seeds = [0, 1, 7, 2**32, 2**53 - 1]
    draws = "seeds => import('/page/views/why.js').then(made => seeds.map(seed => made.uniform(seed, seed % 1000)))"
    drawn = page.evaluate(draws, seeds)
    assert drawn == [uniform(seed, seed % 1000) for seed in seeds]


def test_the_draw_is_the_token_of_the_text(opened):
    """And its bars are the table's numbers, which are the server's."""
    page = opened.go(**STATE, top_k=40)
    asked, written = position(opened, top_k=40)
    answer = opened.ask("/inspect/next", {**asked, "temperature": 0.8, "top_k": 40})
    assert answer["draw"]["token"] == written[5]
    page.locator(".steps[data-by=server]").wait_for()
    assert page.locator(".steps").get_attribute("data-token") == str(written[5])
    rows = page.locator("nl-why tbody tr")
    last = [float(row.locator("td").last.text_content().strip("< %")) / 100 for row in rows.all()[:24]]
    assert last == pytest.approx(answer["top"]["p"][:24], abs=6e-4)
    needle = page.locator("nl-why .needle line").get_attribute("x1")
    assert float(needle.strip("%")) / 100 == pytest.approx(answer["draw"]["u"])
    drawn = page.locator("nl-why .drawn svg:has(.part.chosen)")
    start, width = (float(drawn.get_attribute(name).strip("%")) / 100 for name in ("x", "width"))
    assert start <= answer["draw"]["u"] < start + width


def test_sliders_recompute_and_the_server_confirms(opened):
    page = opened.go(**STATE)
    page.locator(".steps[data-by=server]").wait_for()
    page.locator("nl-why").get_by_label("temperature, slider").fill("0")
    page.locator(".steps[data-by=server] >> text=nothing is drawn").wait_for()
    body, _ = position(opened)
    greedy = opened.ask("/inspect/next", {**body, "temperature": 0})["draw"]["token"]
    assert page.locator(".steps").get_attribute("data-token") == str(greedy)
    assert "temperature=0&" in page.url
    texts = page.locator(".token").all_text_contents()
    opened.follow().locator(".steps[data-by=server] >> text=nothing is drawn").wait_for()
    assert page.locator(".token").all_text_contents() == texts, "the link says what the text was written with, too"
