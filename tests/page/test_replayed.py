"""Views 4 to 6, which Volume 1 recomputes: their pictures and tables show the numbers of /inspect/replay, and beside
them stands what the engine itself says."""

import math

import numpy as np
import pytest

pytestmark = pytest.mark.page
STATE = {"prompt": "the quick brown fox", "run": 1, "max_tokens": 12, "seed": 7, "temperature": 0.8}
AT = 5  # the token that is opened
LAYERS, HEADS, KV_HEADS = 2, 4, 2


@pytest.fixture
def text(opened):
    """All ids of the text that the page writes, and the place before the opened token."""
    body = {name: value for name, value in STATE.items() if name != "run"}
    written = opened.ask("/v1/completions", {**body, "return_token_ids": True})["choices"][0]
    return written["prompt_token_ids"] + written["token_ids"], len(written["prompt_token_ids"]) + AT - 1


def look(opened, view, **state):
    page = opened.go(**STATE, view=view, at=AT, **state)
    whole(page, view)
    return page


def whole(page, view):
    page.locator(f"nl-{view}:not([aria-busy]) .by").wait_for()


def read(cells, convert=float):
    return [convert(cell.replace(",", "").strip("< %")) for cell in cells.all_text_contents()]


def values(found, name):
    return np.array([float(value) for value in found.evaluate_all(f"all => all.map(one => one.dataset.{name})")])


def cell_head(page, column):
    """The token that a column of the lens has read."""
    return page.locator("nl-lens .lens thead th").nth(column + 1).text_content()


def names(opened, ids):
    """As the page shows tokens that are whole characters and can be seen; None for others."""
    described = opened.ask("/inspect/tokens", {"tokens": ids})["tokens"]
    shown = [(one["text"] or "\0").replace(" ", "␣").replace("\n", "⏎") for one in described]
    return [text if text.isprintable() else None for text in shown]


def test_the_lens_is_volume_1s(opened, text):
    ids, place = text
    page = look(opened, "lens", pins="70,71")
    tokens, pins = ids[: place + 1], [ids[place + 1], 70, 71]
    _, found = opened.replay("lens", tokens, first=max(0, len(tokens) - 8), pins=pins)
    cells = page.locator("nl-lens .lens td")
    assert values(cells, "id").tolist() == found["ids"][:, :, 0].ravel().tolist()
    assert values(cells, "p") == pytest.approx(found["p"][:, :, 0].ravel(), rel=1e-6)
    assert read(cells.locator("small")) == pytest.approx(100 * found["p"][:, :, 0].ravel(), abs=0.051)
    shown, known = cells.locator("span").all_text_contents(), names(opened, found["ids"][:, :, 0].ravel().tolist())
    assert all(name in (None, word) and word.strip() for word, name in zip(shown, known, strict=True))
    assert any(known)
    assert page.locator("nl-lens th[scope=row]").all_text_contents() == ["embedding", "layer 0", "layer 1"]
    # the picture of the ranks, and its table
    ranks = found["pin_rank"][:, -1]  # (rows, pins)
    assert values(page.locator("nl-lens circle"), "rank").tolist() == ranks.T.ravel().tolist()
    heights = [float(value.strip("%")) for value in page.locator("nl-lens circle").evaluate_all(
        "all => all.map(one => one.getAttribute('cy'))")]  # fmt: skip
    vocabulary = opened.ask("/inspect/model")["vocab_size"]
    assert heights == pytest.approx(100 * np.log(ranks.T.ravel()) / math.log(vocabulary))
    rows = page.locator("nl-lens .twin tbody tr")
    table = np.array([read(row.locator("td.number")) for row in rows.all()])
    assert table[:, 0::2].tolist() == ranks.tolist()
    assert table[:, 1::2] == pytest.approx(100 * found["pin_p"][:, -1], abs=0.051)


def test_the_lens_says_what_the_engine_says(opened, text):
    """Its last row, of every column, is the distribution that is served."""
    ids, _ = text
    page = look(opened, "lens")
    last = page.locator("nl-lens .lens tbody tr").last.locator("td")
    for column, cell in enumerate(last.all()):
        cell.click()
        top = opened.ask("/inspect/next", {"prompt": ids[: int(page.url.split("place=")[1].split("&")[0]) + 1]})["top"]
        page.locator(f"nl-lens td[data-column='{column}'][aria-selected=true]").wait_for()
        shown = page.locator("nl-lens .bars tbody td.after")
        assert values(shown, "p") == pytest.approx(top["p"][:5], rel=1e-4)
        page.locator("nl-lens .chart", has_text=f"having read “{cell_head(page, column)}”").wait_for()
        engine = page.locator("nl-lens .by .engine", has_text=f"{100 * top['p'][0]:.1f} %")
        engine.wait_for()
    assert "Volume 1" in page.locator("nl-lens .by").text_content()


def test_a_word_is_pinned_by_keyboard_and_in_the_link(opened, text):
    page = look(opened, "lens")
    page.locator("nl-lens td[aria-selected=true]").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    chosen = page.locator("nl-lens td[aria-selected=true]")
    assert (chosen.get_attribute("data-row"), chosen.get_attribute("data-column")) == ("1", "6")
    assert chosen.evaluate("one => one === document.activeElement")
    word = opened.ask("/inspect/tokens", {"prompt": " fox"})["tokens"][0]["id"]
    page.locator("#pin").fill("␣fox")
    page.keyboard.press("Enter")
    page.locator("nl-lens li").nth(1).wait_for()
    assert f"pins={word}" in page.url and "row=1" in page.url
    address, ranks = page.url, page.locator("nl-lens circle").evaluate_all("all => all.map(one => one.dataset.rank)")
    page.goto("about:blank")
    page.goto(address)
    whole(page, "lens")
    assert page.locator("nl-lens circle").evaluate_all("all => all.map(one => one.dataset.rank)") == ranks
    assert page.locator("nl-lens td[aria-selected=true]").get_attribute("data-row") == "1"
    page.get_by_role("button", name="Unpin").click()
    page.locator("nl-lens li").nth(1).wait_for(state="detached")
    assert "pins" not in page.url


def test_attention_is_volume_1s(opened, text):
    """Arcs, grids and the table have the weights of the chosen head and of those that share its KV head."""
    ids, place = text
    page = look(opened, "attention", layer=1, head=3)
    weights = opened.replay("attention", ids, layer=1)[1]["weights"].astype(float)
    group = [2, 3]
    columns = page.locator("nl-attention .twin").first.locator("thead th").all_text_contents()
    assert columns == ["#", "token", "head 2", "head 3"]
    rows = page.locator("nl-attention .twin").first.locator("tbody tr")
    table = [[float(text) for text in row.locator("td").all_text_contents()[2:]] for row in rows.all()]
    assert np.array(table) == pytest.approx(weights[group, place, : place + 1].T, abs=5.1e-5)
    for n, head in enumerate(group):
        paths = page.locator(f"nl-attention .arcs g.tone{n} path")
        drawn = dict(zip(values(paths, "to").astype(int).tolist(), values(paths, "weight").tolist(), strict=True))
        row = weights[head, place, : place + 1]
        assert drawn == {to: weight for to, weight in enumerate(row.tolist()) if weight >= 0.01}
    strong = page.locator("nl-attention .arcs g.strong")
    assert strong.count() == 1 and "tone1" in strong.get_attribute("class")
    painted = page.locator("nl-attention figure canvas").evaluate_all("""all => all.map(one =>
        [...one.getContext("2d").getImageData(0, 0, one.width, one.height).data].filter((_, at) => at % 4 === 3))""")
    for pixels, head in zip(painted, group, strict=True):
        assert np.array(pixels) == pytest.approx(255 * np.sqrt(weights[head].ravel()), abs=1)


def test_all_heads_and_their_keys(opened, text):
    ids, place = text
    page = look(opened, "attention", layer=0, head=0)
    every = opened.replay("attention", ids)[1]["weights"]
    painted = page.locator("nl-attention .thumbs canvas").evaluate_all("""all => all.map(one =>
        [...one.getContext("2d").getImageData(0, 0, one.width, one.height).data].filter((_, at) => at % 4 === 3))""")
    expected = every.reshape(LAYERS * HEADS, -1)
    assert np.array(painted) == pytest.approx(255 * np.sqrt(expected / 255), abs=1)
    rows = page.locator("nl-attention .twin").last.locator("tbody tr")
    first = [read(row.locator("td"))[:4] for row in rows.all()]
    means = every[:, :, 1:, 0].mean(axis=2).ravel() / 2.55
    assert np.array(first)[:, 2].tolist() == [head // (HEADS // KV_HEADS) for head in range(HEADS)] * LAYERS
    assert np.array(first)[:, 3] == pytest.approx(means, abs=0.051)
    page.locator("nl-attention .thumbs button").nth(HEADS + 2).click()
    whole(page, "attention")
    assert "layer=1" in page.url and "head=2" in page.url
    page.locator("nl-attention .reads [aria-selected=true]").focus()
    page.keyboard.press("h")
    page.keyboard.press("L")  # back
    page.keyboard.press("ArrowLeft")
    whole(page, "attention")
    assert all(part in page.url for part in ("layer=0", "head=3", f"place={place - 1}"))
    page.locator("nl-attention .says, nl-attention [role=status]", has_text="In head 3 of layer 0").wait_for()
    assert page.locator("nl-attention .thumbs [aria-pressed=true]").get_attribute("data-head") == "3"


def test_the_shares_make_the_logit(opened, text):
    """Volume 1's shares as bars end to end; their sum is its logit, which is the engine's."""
    ids, place = text
    page = look(opened, "attribution")
    head, found = opened.replay("attribution", ids[: place + 1], token=ids[place + 1])
    bars = page.locator("nl-attribution rect[data-share]")
    assert values(bars, "share") == pytest.approx(found["shares"], rel=1e-12)
    edges = np.array(
        bars.evaluate_all("all => all.map(one => ['x', 'width'].map(name => parseFloat(one.getAttribute(name))))")
    )
    ends = np.concatenate([[0], np.cumsum(found["shares"])])
    scale = 100 / (ends.max() - ends.min())
    low = np.minimum(ends[:-1], ends[1:])
    assert edges[:, 0] == pytest.approx((low - ends.min()) * scale, abs=1e-6)
    assert edges[:, 1] == pytest.approx(np.maximum(0.4, abs(found["shares"]) * scale), abs=1e-6)
    assert float(page.locator("nl-attribution .total").get_attribute("data-sum")) == pytest.approx(
        head["logit"], abs=1e-4
    )
    rows = [row.locator("td").all_text_contents() for row in page.locator("nl-attribution .twin tbody tr").all()]
    assert [row[0] for row in rows] == head["names"]
    assert [float(row[1]) for row in rows] == pytest.approx(found["shares"], abs=5.1e-5)
    assert float(rows[-1][2]) == pytest.approx(head["logit"], abs=1.6e-4)
    top = opened.ask("/inspect/next", {"prompt": ids[: place + 1]})["top"]
    served = top["logits"][top["ids"].index(ids[place + 1])]
    assert float(page.locator("nl-attribution .own").text_content()) == pytest.approx(served, abs=6e-4)
    assert head["logit"] == pytest.approx(served, abs=1e-4)


def test_two_words_are_compared(opened, text):
    ids, place = text
    page = look(opened, "attribution")
    words = values(page.locator("nl-attribution [data-id]"), "id").astype(int).tolist()
    page.locator("nl-attribution [data-id]").nth(2).click()
    page.locator("nl-attribution [aria-pressed=true]").wait_for()
    page.locator("#against").select_option(str(words[0]))
    page.locator("nl-attribution p", has_text="the lead of").wait_for()
    shares = [opened.replay("attribution", ids[: place + 1], token=word)[1]["shares"] for word in (words[2], words[0])]
    assert values(page.locator("nl-attribution rect[data-share]"), "share") == pytest.approx(shares[0] - shares[1])
    assert f"word={words[2]}" in page.url and f"against={words[0]}" in page.url


def test_who_looks_elsewhere_need_not_wait(opened, text):
    """A replay that nobody wants any more is stopped; what was asked for last is shown, without a complaint."""
    page = look(opened, "lens")
    for view in ("attention", "attribution", "lens", "attention", "attribution"):
        page.locator(f"#tab-{view}").click()
    whole(page, "attribution")
    page.locator(".token").nth(8).click()
    page.locator(".token").nth(9).click()
    page.locator(".token[data-at='9'][aria-selected=true]").wait_for()
    whole(page, "attribution")
    head, found = opened.replay("attribution", text[0][: text[1] + 5], token=text[0][text[1] + 5])
    page.locator(f"nl-attribution [aria-pressed=true][data-id='{head['token']}']").wait_for()
    assert values(page.locator("nl-attribution rect[data-share]"), "share") == pytest.approx(found["shares"])


def test_while_the_server_replays_for_others(opened):
    """The page asks again, and says why it waits; beyond what is replayed it says so."""
    page = opened.go(**STATE)
    page.evaluate("""() => {
        const real = window.fetch, busy = {error: {message: "Another replay is running.", code: "busy"}};
        let refused = 2;
        window.fetch = (path, ...rest) => path.endsWith("replay") && refused-- > 0
            ? Promise.resolve(new Response(JSON.stringify(busy), {status: 429})) : real(path, ...rest);
    }""")
    page.locator("#tab-attribution").click()
    page.locator("nl-attribution", has_text="computes for somebody else").wait_for()
    whole(page, "attribution")
    info = opened.ask("/inspect/model")
    page.route("**/inspect/model", lambda route: route.fulfill(json=info))
    prompt = len(opened.ask("/inspect/tokens", {"prompt": STATE["prompt"]})["tokens"])
    for most, advice in ((2, "Shorten the prompt."), (prompt, "Open an earlier one.")):
        info["limits"]["replayed"] = most
        opened.go(**STATE, view="lens", at=AT)
        page.locator("nl-lens", has_text=f"replays at most {most} tokens").filter(has_text=advice).wait_for()
