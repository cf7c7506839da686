"""The page of `nano-llama serve` in a browser's window, and what went wrong in it."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from helpers.replayed import unpacked

PATIENCE = 30_000  # milliseconds for what takes a moment


class Opened:
    """The page in a window of its own, and what went wrong in it."""

    def __init__(self, context: Any, port: int):
        self.page, self.port = context.new_page(), port
        self.page.set_default_timeout(PATIENCE)
        self.faults: list[str] = []
        self.outside: list[str] = []
        self.page.on(
            "console", lambda said: self.faults.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._request)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((f"http://127.0.0.1:{self.port}/", "blob:", "data:")):
            self.outside.append(request.url)

    def go(self, **state: Any) -> Any:
        """Open the page at a state of its hash, and wait for what it wrote."""
        self.page.goto("about:blank")
        self.page.goto(f"http://127.0.0.1:{self.port}/#{urlencode(state)}")
        self.page.locator("#desk").wait_for()
        if "run" in state:
            self.page.locator("nl-river details").first.wait_for()
        return self.page

    def follow(self) -> Any:
        """Open the link that the page is at, as somebody else would."""
        address = self.page.url
        self.page.goto("about:blank")
        self.page.goto(address)
        self.page.locator("nl-river details").first.wait_for()
        return self.page

    def ask(self, path: str, body: Any = None) -> Any:
        """The server's own answer, not through the page."""
        return json.loads(self.text(path, body))

    def replay(self, view: str, tokens: list[int], **body: Any) -> Any:
        """What Volume 1 computes, not through the page: a head and arrays."""
        return unpacked(self._asked("/inspect/replay", {"view": view, "tokens": tokens, **body}))

    def text(self, path: str, body: Any = None) -> str:
        return self._asked(path, body).decode()

    def _asked(self, path: str, body: Any) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.port}{path}", data)
        with urlopen(request) as answer:
            return answer.read()


def unfold(details: Any) -> None:
    """Open what is folded away, and let it be filled: the browser says so ("toggle") only after the click."""
    told = "one => ({ told: new Promise(done => one.addEventListener('toggle', () => done(), { once: true })) })"
    waiting = details.evaluate_handle(told)
    details.locator("summary").click()
    waiting.evaluate("({ told }) => told")


def flaws(axe: Any, page: Any) -> list[tuple[str, ...]]:
    """What axe finds: theme, rule and element. A theme changes nothing but colours."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe.Axe().axe_script)
    find = """rules => axe.run({ resultTypes: ["violations"], ...rules })
        .then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes[0].html]))"""
    found = []
    for theme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        page.emulate_media(color_scheme=theme)
        found += [(theme, *one) for one in page.evaluate(find, rules)]
    return found


def all_fetched(page: Any) -> None:
    """Every view is there, as it is once the page is idle."""
    page.evaluate("""() => new Promise(done => {
        const views = [...document.querySelectorAll("#views > *")];
        const look = () => (views.every(view => view.show) ? done() : setTimeout(look, 20));
        look();
    })""")


def drawn(page: Any) -> None:
    """What happened until now is in the pictures: the views of the engine draw at the next frame."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => done()))")


@contextlib.contextmanager
def a_window(browser: Any, server: Any, **options: Any) -> Iterator[Opened]:
    """Nothing was requested elsewhere, and the console is silent."""
    options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
    context = browser.new_context(**options)
    opened = Opened(context, server.port)
    yield opened
    context.close()
    assert not opened.outside
    assert not opened.faults
