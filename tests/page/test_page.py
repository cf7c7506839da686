"""The page: opened in both themes on narrow and wide screens, used by mouse and by keyboard; its pictures show the
numbers of the API. Hostile texts: test_hostile_texts.py."""

import json
import math
import re
from urllib.parse import parse_qs

import pytest

from helpers.page import a_window, flaws
from nano_llama.server.page_files import FOLDER, read_page

pytestmark = pytest.mark.page

STATE = {"prompt": "the quick brown", "run": 1, "max_tokens": 12, "seed": 7}
VIEWS = [
    "alternatives",
    "why",
    "lens",
    "attention",
    "attribution",
    "reads",
    "branches",
    "grammar",
    "volumes",
    "blocks",
    "timeline",
    "roofline",
]


def numbers(texts):
    """["12.3 %"] -> [0.123]"""
    return [float(text.replace("<", "").strip(" %")) / 100 for text in texts]


def as_shown(names):
    """The API's names of tokens, as the page shows them: a part of a character, or nothing, has a mark."""
    return ["▯" if name.startswith("bytes:") else name or "∅" for name in names]


def test_it_is_small():
    """As it is sent, file by file."""
    assert sum(len(file.packed) for file in read_page().values()) < 60_000


def test_no_text_is_parsed_and_nothing_is_from_elsewhere():
    sources = {path: path.read_text() for path in FOLDER.rglob("*.*")}
    risky = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc")
    assert not [path.name for path, text in sources.items() if risky.search(text)]
    addresses = {address for text in sources.values() for address in re.findall(r"https?://[^\s\"')]+", text)}
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address


def each_view(page):
    """Every view in turn, as it is once it shows what it was asked for."""
    for view in VIEWS:
        page.locator(f"#tab-{view}").click()
        page.locator(f"#panel-{view}").locator("table, select").first.wait_for(state="attached")
        page.locator(f"#panel-{view}:not([aria-busy])").wait_for()
        yield view


WIDER = """view => {
    const panel = document.getElementById(`panel-${view}`), end = one => one.getBoundingClientRect().right;
    const wide = [...panel.querySelectorAll("*")].filter(one => end(one) > end(panel) + 1);
    return wide.filter(one => !one.closest(".scroll, .lanes, pre")).map(one => one.outerHTML.slice(0, 80));
}"""  # what is wider than its view and does not scroll in it


@pytest.mark.parametrize("width", [320, 1280])
def test_every_view_fits_and_is_silent(browser, server, width):
    with a_window(browser, server, viewport={"width": width, "height": 800}) as opened:
        page = opened.go(**STATE, at=2)
        for view in each_view(page):
            assert page.locator("[role=tabpanel]:visible").count() == 2, "who writes, and what is seen"
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
            assert page.evaluate(WIDER, view) == [], view


def test_axe_finds_nothing(browser, chat_server):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra `judges` is not installed")
    with a_window(browser, chat_server, bypass_csp=True) as opened:  # axe's script is not ours
        page = opened.go(**STATE, at=2)
        for view in each_view(page):
            assert not flaws(axe, page), view


def test_a_view_that_cannot_be_fetched_says_so(opened):
    page = opened.page
    page.route("**/views/depth.js", lambda route: route.abort())
    opened.go(view="lens")
    page.locator("#panel-lens [role=alert]", has_text="could not be fetched").wait_for()
    page.locator("#tab-reads").click()
    page.locator("#panel-reads .hint").wait_for()
    page.unroute("**/views/depth.js")
    opened.go(**STATE, view="lens", at=2)
    page.locator("nl-lens table.lens").wait_for()
    opened.faults.clear()  # the browser notes the failure


def test_the_text_is_the_apis(opened):
    page = opened.go(**STATE)
    body = {"prompt": STATE["prompt"], "max_tokens": 12, "seed": 7, "temperature": 0.8, "logprobs": 0}
    answer = opened.ask("/v1/completions", body)["choices"][0]
    tokens = page.locator(".token")
    assert tokens.all_text_contents() == as_shown(answer["logprobs"]["tokens"])
    table = page.locator("nl-river table tbody tr")
    shown = [float(row.locator("td").last.text_content()) for row in table.all()]
    bits = [max(0, -logprob / math.log(2)) for logprob in answer["logprobs"]["token_logprobs"]]
    assert shown == pytest.approx(bits, abs=0.0051)
    tints = [
        float(value) for value in tokens.evaluate_all("all => all.map(one => one.style.getPropertyValue('--much'))")
    ]
    assert tints == pytest.approx([min(1, bit / 10) for bit in bits], abs=0.0011)


def test_alternatives_are_the_distribution_of_the_position(opened):
    page = opened.go(**STATE, at=3, top_k=10)
    rows = page.locator("nl-alternatives tbody tr")
    rows.first.wait_for()
    settings = {"temperature": 0.8, "top_k": 10, "seed": 7}
    body = {"prompt": STATE["prompt"], "max_tokens": 12, "return_token_ids": True, **settings}
    written = opened.ask("/v1/completions", body)["choices"][0]
    before = {"prompt": written["prompt_token_ids"], "output": written["token_ids"][:3]}
    answer = opened.ask("/inspect/next", {**before, **settings})
    top = answer["top"]
    raw = [math.exp(logit - answer["logsumexp"]) for logit in top["logits"]]
    ids = [int(row.get_attribute("data-id")) for row in rows.all()]
    assert ids[:20] == top["ids"][:20]
    shown = [float(cell.get_attribute("data-p")) for cell in rows.locator("td.before").all()]
    assert shown == pytest.approx([raw[top["ids"].index(number)] for number in ids], abs=1e-9)
    assert numbers(rows.locator("td.before").all_text_contents())[:5] == pytest.approx(shown[:5], abs=6e-4)
    after = rows.locator("td.after").all_text_contents()
    assert numbers(after[:10]) == pytest.approx(top["p"][:10], abs=6e-4)
    assert set(after[10:20]) == {"cut by top-k"}
    assert int(page.locator("nl-alternatives tr.chosen").get_attribute("data-id")) == written["token_ids"][3]


def test_the_server_is_asked_ahead(opened):
    """Once somebody stays at a token: it is mostly opened next. Who walks past asks nothing."""
    page, asked = opened.go(**STATE), []
    page.on("request", lambda sent: asked.append(sent.post_data_json) if sent.url.endswith("/inspect/next") else None)
    with page.expect_request("**/inspect/next"):
        page.evaluate("document.querySelectorAll('.token').forEach((token, at) => at < 5 && token.focus())")
    page.keyboard.press("Enter")
    page.locator("nl-alternatives[data-at='4']").wait_for()
    assert [len(body["output"]) for body in asked] == [4]


def test_by_keyboard_alone(opened):
    page = opened.go()
    page.locator("#prompt").focus()
    page.keyboard.type("the quick brown")
    page.keyboard.press("Control+Enter")
    page.locator("nl-river details").wait_for()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.at") == "0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    first = page.locator("nl-alternatives button").first
    first.wait_for()
    assert page.locator("[role=option][aria-selected=true]").get_attribute("data-at") == "2"
    page.locator("nl-alternatives button:focus").wait_for()
    assert page.locator(".token[tabindex='0']").count() == 1
    page.keyboard.press("2")
    page.locator(".token.picked").wait_for()
    page.locator("nl-river details").wait_for()
    page.keyboard.press("Shift+?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden()
    page.locator("#tab-alternatives").focus()
    page.keyboard.press("End")
    page.locator("#views > :last-child").wait_for()


def test_a_branch_goes_on_from_another_token(opened):
    """What it writes is what the API writes after these ids; the link replays it."""
    page = opened.go(**STATE, at=3)
    choice = page.locator("nl-alternatives tr:not(.chosen) button").first
    choice.click()
    page.locator(".token.picked").wait_for()
    page.locator("nl-river details").wait_for()
    page.locator("nl-complete .hint", has_text="tokens:").wait_for()
    page.locator("#tab-branches").click()
    rows = page.locator("nl-branches tbody tr")
    rows.nth(1).wait_for(state="attached")
    assert rows.count() == 2
    texts = page.locator(".token").all_text_contents()
    state = parse_qs(page.evaluate("location.hash.slice(1)"))
    place, number = map(int, state["path"][0].split(":"))
    body = {"prompt": STATE["prompt"], "max_tokens": 12, "seed": 7, "temperature": 0.8, "return_token_ids": True}
    parent = opened.ask("/v1/completions", body)["choices"][0]
    ids = [*parent["prompt_token_ids"], *parent["token_ids"][:place], number]
    own = opened.ask("/v1/completions", {**body, "prompt": ids, "logprobs": 0})["choices"][0]
    assert place == 3 and texts[4:] == as_shown(own["logprobs"]["tokens"])
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.locator(".token.picked").wait_for()
    page.locator("nl-complete .hint", has_text="tokens:").wait_for()
    assert page.locator(".token").all_text_contents() == texts


def test_what_the_model_reads_is_its_tokenizers(opened):
    text = "the lazy fox, naïve 🙂\n"
    page = opened.go(prompt=text, view="reads")
    page.locator("nl-reads .piece").first.wait_for()
    answer = opened.ask("/inspect/tokens", {"prompt": text})
    assert page.locator("nl-reads .piece small").all_text_contents() == [str(token["id"]) for token in answer["tokens"]]
    rows = page.locator("nl-reads tbody tr")
    assert [row.locator("td").nth(2).text_content() for row in rows.all()] == [str(t["id"]) for t in answer["tokens"]]
    read = "".join(row.locator("td").nth(3).text_content() + " " for row in rows.all())
    assert bytes.fromhex(read) == text.encode()
    place = max(range(len(answer["tokens"])), key=lambda at: len(answer["tokens"][at]["merges"] or ()))
    page.locator("nl-reads .piece").nth(place).click()
    assert page.locator("nl-reads .merges li").count() == len(answer["tokens"][place]["merges"])
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.locator(f"nl-reads [data-at='{place}'][aria-selected=true]").wait_for()


def test_under_a_rule(opened):
    page = opened.go(prompt="A yes or no:", view="grammar", run=1, at=0, form="choice", rule="yes\nno")
    page.locator("nl-grammar .big").wait_for()
    text = "".join(page.locator(".token").all_text_contents())
    assert text.replace("∅", "").strip() in ("yes", "no")
    struck = page.locator("nl-grammar tbody tr", has_text="struck out").count()
    assert struck == page.locator("nl-grammar .chip.out").count() > 0


def test_sentences_are_spoken_whole(opened):
    """Token by token nobody who listens could follow."""
    tokens = ["One", " two", ".", " Three", " four", "!", " Five"]
    chunks = [
        {
            "choices": [
                {"index": 0, "text": text, "token_ids": [1], "finish_reason": "length" if text == " Five" else None}
            ]
        }
        for text in tokens
    ]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    page = opened.go(prompt="x")
    page.route("**/v1/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.evaluate("""() => {
        const region = document.getElementById("spoken");
        window.spoken = [];
        new MutationObserver(all => all.forEach(one => one.addedNodes.forEach(node => spoken.push(node.data))))
            .observe(region, {childList: true});
    }""")
    page.get_by_role("button", name="Continue").click()
    page.locator("nl-complete .hint", has_text="tokens:").wait_for()
    assert page.evaluate("spoken") == ["One two.", "Three four!", "Five The text has ended."]


def test_the_merges_end_in_the_piece(opened):
    page = opened.go(prompt="the naïve café", view="reads")
    page.locator("nl-reads .piece").first.wait_for()
    tokens = opened.ask("/inspect/tokens", {"prompt": "the naïve café"})["tokens"]
    merged = [at for at, token in enumerate(tokens) if token["merges"] and token["text"]]
    assert merged
    for at in merged:
        page.locator("nl-reads .piece").nth(at).click()
        assert page.locator("nl-reads .merges li").last.locator(".chip").last.text_content() == (
            tokens[at]["text"].replace(" ", "␣")
        )


def test_the_tour_ends(opened):
    page = opened.go(prompt="the quick brown", max_tokens=8)
    page.locator("#tour").click()
    for step in range(1, 9):
        page.locator(".tour p", has_text=f"{step} of 8").wait_for()
        page.locator(".tour .primary").click()
    page.locator(".tour").wait_for(state="detached")
    page.locator("#panel-grammar select").wait_for()
    assert page.locator("nl-branches tbody tr").count() == 2
