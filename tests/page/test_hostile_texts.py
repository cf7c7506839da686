"""Two hundred hostile texts (tokens, model names, what a template makes, turns, errors, links) change nothing but text.

What is compared is the page's skeleton: its elements, their attributes, how many texts each has, but not what they say.
With harmless texts of the same shape it must be the same.
"""

import json
from urllib.parse import urlencode

import pytest

from helpers.hostile_texts import TEXTS, harmless
from helpers.page import PATIENCE, a_window, all_fetched

pytestmark = pytest.mark.page
STATE = {"prompt": "the quick brown", "run": 1, "max_tokens": 12, "seed": 7, "at": 3,
         "form": "choice", "rule": "yes\nno"}  # fmt: skip
HIT = "window.hits = 0; window.hit = () => { window.hits++ }"
SKELETON = """() => {
    const ours = ["class", "role", "type", "href", "src"];
    const said = one => ours.includes(one.name) ? `${one.name}=${one.value}` : one.name;
    const walk = node => node.nodeType === 1
        ? [node.localName, [...node.attributes].map(said).sort().join(" "), [...node.childNodes].map(walk)]
        : node.nodeType;
    return JSON.stringify(walk(document.documentElement));
}"""
VIEWS = ["alternatives", "why", "lens", "attention", "attribution", "reads", "grammar", "volumes",
         "blocks", "timeline", "roofline", "branches"]  # fmt: skip
REPLAYED, MUTATED = ["lens", "attention", "attribution"], VIEWS[:2]
OPENED = {"blocks": ".chip", "timeline": ".packed"}  # what is seen of a block and of a step that is chosen
APPEND, SET = "element.append(...shown(children));", 'else element.setAttribute(name, value === true ? "" : value);'
MUTANTS = {  # of lib/dom.js: where it would take a text for more
    "none": (APPEND, APPEND),
    "an element": (APPEND, "for (const one of shown(children)) one instanceof Node"
                           " ? element.append(one) : element.insertAdjacentHTML('beforeend', one);"),
    "an attribute": (SET, "else element.setAttribute(name === 'title' ? `title${value.length}` : name, value);"),
}  # fmt: skip


class Hostile:
    """The server's answers, in whose texts there are these; the rest is as the server has it."""

    def __init__(self, opened, texts):
        self.opened, self.texts, self.page = opened, texts, opened.page
        self.page.add_init_script(HIT)
        self.info = {**opened.ask("/inspect/model"), "model": " ".join(texts), "models": list(texts)}
        count, ids = len(texts), list(range(len(texts)))
        numbers = [1 / count] * count
        self.answers = {
            "/inspect/model": self.info,
            "/inspect/next": {
                "top": {"ids": ids, "texts": texts, "cut_by": [None, "constraint", *[None] * (count - 2)],
                        "logits": numbers, "adjusted": numbers, "p": numbers, "from": [at / count for at in ids]},
                "cuts": [{"name": "constraint", "left": count - 1, "mass": 0.9},
                         {"name": "temperature", "left": count, "mass": 1.0}],
                "draw": {"u": 0.5, "token": count // 2, "text": texts[count // 2], "p": 1 / count,
                         "from": 0.5, "to": 0.51},
                "position": 3, "vocab_size": count, "logsumexp": 5.3, "adjusted_logsumexp": 5.3, "entropy": 5.3,
            },
            "/inspect/roofline": {
                "bandwidth": 1e9, "weight_bytes": 10**6, "kv_bytes_per_token": 100, "threads": 2,
                "runner": texts[0], "phases": texts,
            },
            "/inspect/volumes": {
                "position": 3, "vocab_size": count, "reference": "volume1", "ids": ids, "texts": texts,
                "seconds": {"volume1": 0.1},
                "numbers": {"engine": {"runner": texts[0], "weights": texts, "kv_cache": texts[1]}},
                "volumes": {name: {"logits": numbers, "logsumexp": 5.3, "choice": count + 1, "kl": 0.1,
                                   "largest_difference": 0.2} for name in ("engine", "volume1")},
            },
        }  # fmt: skip
        self.own = None  # the id of the request whose steps are shown
        self.page.route("**/inspect/*", self.inspected)
        self.page.route("**/v1/completions", self.streamed)

    def inspected(self, route):
        path = "/inspect/" + route.request.url.rsplit("/", 1)[1]
        if path == "/inspect/tokens":
            return route.fulfill(json=self.read(route.request.post_data_json))
        if path == "/inspect/events":
            return self.send(route, [{"event": "began", **self.info["engine"]}, *self.steps(), {"event": "over"}])
        if path in self.answers:
            return route.fulfill(json=self.answers[path])
        return route.continue_()

    def read(self, asked):
        ids = asked.get("tokens") or range(len(self.texts))
        tokens = [self.token(number, self.texts[number % len(self.texts)]) for number in ids]
        return {"text": "".join(self.texts), "count": len(tokens), "tokens": tokens}

    def token(self, number, text):
        return {"id": number, "text": text, "bytes": [1, 2, 3], "start": 0, "end": 3, "special": number % 3 == 0,
                "injected": number % 3 == 1, "merges": [{"left": text, "right": text, "rank": 3}]}  # fmt: skip

    def steps(self):
        """The page's own request reads the texts, a block a step, and writes one token more."""
        size, others = self.info["engine"]["block_size"], {"rows": 0, "sequences": 0, "tokens": 0, "context": 0}
        rows = [{"position": at, "count": size, "chooses": False} for at in range(0, len(self.texts), size)]
        rows.append({"position": len(self.texts), "count": 1, "chooses": True})
        yield {"event": "arrived", "sequence": 0, "own": self.own, "prompt_tokens": len(self.texts), "max_length": 300}
        for number, row in enumerate(rows):
            blocks = list(range(number + 1))
            yield {
                "event": "step", "step": number, "seconds": 0.01, "phases": dict.fromkeys(self.texts, 1e-5),
                "rows": [{"sequence": 0, "own": self.own, "start": 0, "blocks": blocks, **row}], "others": others,
                "prefix_hits": {}, "preempted": [], "waiting": 0,
                "blocks": {"held": len(blocks), "kept": 0, "empty": self.info["engine"]["num_blocks"] - len(blocks)},
            }  # fmt: skip

    def send(self, route, events):
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        route.fulfill(content_type="text/event-stream", body=body)

    def streamed(self, route):
        self.own, ended = route.request.headers["x-request-id"], len(self.texts) - 1
        chunks = [
            {"choices": [{"index": 0, "text": text, "token_ids": [at], "prompt_token_ids": [1, 2, 3],
                          "finish_reason": self.texts[0] if at == ended else None,
                          "logprobs": {"tokens": [text], "token_logprobs": [-1.0]}}]}
            for at, text in enumerate(self.texts)
        ]  # fmt: skip
        self.send(route, chunks)

    def settled(self):
        """The skeleton, once it stays."""
        before = None
        while (now := self.page.evaluate(SKELETON)) != before:
            before = now
            self.page.wait_for_timeout(100)
        return now

    def look(self, views=VIEWS):
        """The page's skeleton in every view; in the last one after a branch."""
        page, seen = self.opened.go(**STATE), {}
        all_fetched(page)
        for view in views:
            page.locator(f"#tab-{view}").click()
            if view == "branches":
                self.branch()
            panel = page.locator(f"#panel-{view}")
            panel.locator("table, select").first.wait_for(state="attached")
            if view == "grammar":
                panel.locator(".bound").wait_for()
            if view == "reads":
                panel.locator(".piece").nth(1).click()
            if view in OPENED:
                panel.locator("[role=option]").first.click()
                panel.locator(OPENED[view]).wait_for()
            if view in REPLAYED:
                panel.locator(".by").wait_for()
            seen[view] = self.settled()
        assert page.evaluate("window.hits") == 0
        return seen

    def branch(self):
        page = self.page
        page.locator("#tab-alternatives").click()
        page.locator("nl-alternatives tr:not(.chosen) button").first.click()
        page.locator(".token.picked").wait_for()
        page.locator("nl-complete .hint", has_text="tokens:").wait_for()
        page.locator("#tab-branches").click()
        page.locator("nl-branches tbody tr").nth(1).wait_for(state="attached")


@pytest.fixture(scope="module")
def harmless_look(browser, server):
    with a_window(browser, server) as opened:
        return Hostile(opened, [harmless(text) for text in TEXTS]).look()


def test_there_are_two_hundred():
    assert len(set(TEXTS)) == 200


def test_what_a_server_says_changes_nothing_but_text(browser, server, harmless_look):
    with a_window(browser, server) as opened:
        seen = Hostile(opened, TEXTS).look()
        for view, skeleton in seen.items():
            assert skeleton == harmless_look[view], view
        page = opened.page
        assert page.locator(".token").all_text_contents()[4:] == list(TEXTS)
        assert page.locator("#model").text_content().startswith(" ".join(TEXTS))
        page.locator("#tab-reads").click()
        names = [text.replace(" ", "␣") for text in TEXTS]
        page.locator("nl-reads .piece").last.wait_for()
        assert page.locator("nl-reads .piece > span").all_text_contents() == names
        page.locator("#tab-volumes").click()
        page.locator(".less button").last.wait_for()
        assert page.locator(".less button").all_text_contents() == names


@pytest.mark.parametrize("name", MUTANTS)
def test_a_page_that_did_more_would_be_noticed(browser, server, harmless_look, name):
    """Without its policy, which is a second wall."""
    with a_window(browser, server, bypass_csp=True) as opened:
        dom, (found, mutated) = opened.text("/page/lib/dom.js"), MUTANTS[name]
        assert found in dom
        opened.page.route("**/lib/dom.js", lambda route: route.fulfill(
            content_type="text/javascript", body=dom.replace(found, mutated)))  # fmt: skip
        opened.page.set_default_timeout(PATIENCE / 10)
        try:
            seen = Hostile(opened, TEXTS).look(MUTATED)
            noticed = any(skeleton != harmless_look[view] for view, skeleton in seen.items())
        except Exception:  # what the texts did left nothing to look at
            noticed = True
        assert noticed == (name != "none")
        opened.faults.clear()
        opened.outside.clear()


def test_the_policy_is_a_second_wall(browser, server):
    """With it a text that reaches innerHTML is an error, and nothing is made of it."""
    with a_window(browser, server) as opened:
        page = opened.go()
        parsed = page.evaluate("""text => {
            try { document.body.innerHTML = text; return true; } catch (error) { return error.name; }
        }""", TEXTS[0])  # fmt: skip
        assert parsed == "TypeError"
        opened.faults.clear()


def test_what_a_link_says_changes_nothing_but_text(browser, server):
    """Each text in one field, ten at a time."""
    fields = ["prompt", "system", "rule", "path", "view", "mode", "pins", "temperature", "seed", "at"]
    with a_window(browser, server) as opened:
        page = opened.page
        page.add_init_script(HIT)
        expected = None
        for first in range(0, len(TEXTS), len(fields)):
            state = dict(zip(fields, TEXTS[first : first + len(fields)], strict=True))
            for said in ({**state, "prompt": "x"}, state)[expected is not None :]:
                page.goto(f"http://127.0.0.1:{opened.port}/?{first}#{urlencode({'form': 'regex', **said})}")
                page.locator("#desk").wait_for()
                all_fetched(page)
                skeleton = page.evaluate(SKELETON)
                expected = expected or skeleton
                assert skeleton == expected, state
            assert page.locator("#prompt").input_value() == state["prompt"]
            assert page.evaluate("window.hits") == 0


def test_kept_conversations_change_nothing_but_text(browser, chat_server):
    def look(texts):
        with a_window(browser, chat_server) as opened:
            opened.page.add_init_script(HIT)
            page = opened.go()
            turns = [{"role": ("user", "assistant")[at % 2], "text": text} for at, text in enumerate(texts)]
            first, *others = texts[100:150]
            kept = [{"id": first, "system": first, "turns": turns[:100]}]
            kept += [{"id": text, "system": text, "turns": turns[at : at + 1]} for at, text in enumerate(others)]
            page.evaluate("kept => localStorage.setItem('nano-llama conversations', kept)", json.dumps(kept))
            opened.go()
            page.locator(".turns li").nth(99).wait_for()
            assert page.locator(".turns .text").all_text_contents() == list(texts[:100])
            assert page.evaluate("window.hits") == 0
            all_fetched(page)
            return page.evaluate(SKELETON)

    assert look(TEXTS) == look([harmless(text) for text in TEXTS])


def test_errors_change_nothing_but_text(browser, server):
    with a_window(browser, server) as opened:
        opened.page.add_init_script(HIT)
        opened.page.route("**/v1/completions", lambda route: route.fulfill(
            status=400, json={"error": {"message": "\n".join(TEXTS), "code": TEXTS[0]}}))  # fmt: skip
        page = opened.go(prompt="x")
        page.get_by_role("button", name="Continue").click()
        page.locator("nl-complete .error").wait_for()
        assert page.locator("nl-complete .error").text_content() == "\n".join(TEXTS)
        assert page.locator("nl-complete .error *").count() == 0 and page.evaluate("window.hits") == 0
        opened.faults.clear()  # the browser notes the status 400
