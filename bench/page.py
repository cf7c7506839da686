"""What the page costs, and how soon it answers: Chromium on a real `nano-llama serve`, run by Playwright.

    python bench/page.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--turns 5] [--only first_view keys cost]

    first_view   from the server being ready to the first view painted: opened while the model loads, and opened once it
                 is ready, by a browser that has no file of the page yet
    keys         from a key to what it shows, painted, while 32 other clients decode: Ctrl + Enter to the first token;
                 Enter on a token to what could have stood there, which the server computes, and is asked ahead once a
                 token has had the focus for 50 ms (here Enter comes 50 to 250 ms after it); an arrow to the view beside
    cost         tokens/s of 32 streaming clients, nobody looking at a view that asks the engine: --no-page, the page
                 served, and the page open on a text that it completed; by turns

Painted: the first message after the next animation frame, by the page's own clock; a key's time is its event's.
The server of `keys` has a place for the page beside the 32, else it would wait until one of them ends.
Needs the extras `serve` and `judges`, and a Chromium. Writes bench/results/page.json; its last printed line is the
summary.
"""

import argparse
import json
import math
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import IO, Any, cast
from urllib.parse import urlencode

from _machine import fingerprint

from nano_llama.core.files import write_json
from server import CLIENTS, HERE, Child, Server, free_port, percentile, prompts

RESULTS = HERE / "results" / "page.json"
BARS = {"first_view_ms": 300, "key_p95_ms": 200, "throughput": 0.95}
PROMPT, NEW = 64, 128  # of each client, in `cost`
KEYS = 20  # of each kind, in a turn
WORDS = ["time", "sea", "house", "light", "river", "old", "small", "green", "run", "tell", "keep", "seven", "story"]

# In the page: painted(ready) is when the frame was painted in which ready() came true; pressed, when the last key went
# down; firstView, when a writer and a view were there. All in milliseconds of the machine's clock.
WATCH = """
window.painted = (ready) => new Promise((done) => {
    const frame = () => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => done(performance.timeOrigin + performance.now());
        port2.postMessage(null);
    });
    const observer = new MutationObserver(() => ready() && (observer.disconnect(), frame()));
    observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
    if (ready()) observer.disconnect(), frame();
});
addEventListener("keydown", (event) => (window.pressed = performance.timeOrigin + event.timeStamp), true);
const filled = (id) => document.querySelector(`#desk:not([hidden]) #${id} > :not([hidden])`)?.childElementCount;
window.firstView = painted(() => filled("writers") && filled("views"));
"""
FIRST_TOKEN = "() => { const old = document.querySelector('.token'); window.seen = painted(() => ![old, null].includes(document.querySelector('.token'))); }"  # noqa: E501
OPENED = "(at) => { window.seen = painted(() => document.querySelector('nl-alternatives').dataset.at === String(at)); }"
VIEW = "(id) => { window.seen = painted(() => document.querySelector(`#${id}:not([hidden]) tbody`)); }"


# -- what the sections share ------------------------------------------------------------------------------------------


@contextmanager
def chromium(path: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def window(browser: Any) -> Iterator[Any]:
    """A window of a browser that has seen nothing yet."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_init_script(WATCH)
    yield context.new_page()
    context.close()


def address(port: int, **state: Any) -> str:
    return f"http://127.0.0.1:{port}/#{urlencode(state)}"


def text(rng: random.Random) -> str:
    return "Once upon a time " + " ".join(rng.choices(WORDS, k=12))


def spread(turns: list[float], digits: int = 0) -> dict[str, Any]:
    return {"median": round(median(turns), digits), "turns": [round(value, digits) for value in turns]}


# -- sections ---------------------------------------------------------------------------------------------------------


def first_view(bench: "Bench") -> dict[str, Any]:
    """Milliseconds: since the server said that it is ready; and since the address was entered after that."""
    loading, ready = [], []
    for _ in range(bench.turns):
        port = free_port()
        command = [sys.executable, "-m", "nano_llama", "serve", "--model", str(bench.model), "--port", str(port)]
        with (
            subprocess.Popen(command, stdout=-1, stderr=subprocess.DEVNULL) as process,
            ThreadPoolExecutor(1) as thread,
            window(bench.browser) as early,
            window(bench.browser) as late,
        ):
            said_ready = thread.submit(moment_of_line, cast(IO[bytes], process.stdout))
            wait_for(port)
            early.goto(address(port))
            assert early.evaluate("document.getElementById('desk').hidden"), "it had loaded before the page was open"
            loading.append(early.evaluate("firstView") - 1e3 * said_ready.result())
            late.goto(address(port), wait_until="commit")
            ready.append(late.evaluate("firstView.then((painted) => painted - performance.timeOrigin)"))
            process.terminate()
    return {"opened_while_loading_ms": spread(loading), "opened_when_ready_ms": spread(ready)}


def moment_of_line(stream: IO[bytes]) -> float:
    stream.readline()
    return time.time()


def wait_for(port: int) -> None:
    """Until somebody listens there."""
    while socket.socket().connect_ex(("127.0.0.1", port)):
        time.sleep(0.01)


def keys(bench: "Bench") -> dict[str, Any]:
    """Milliseconds from a key to the paint, beside 32 clients that decode."""
    found: dict[str, list[list[float]]] = {"first_token": [], "open_a_token": [], "another_view": []}
    server = Server(bench.model, "--max-num-seqs", str(CLIENTS + 8))
    try:
        for turn in range(bench.turns):
            with others(server, turn), window(bench.browser) as page:
                page.goto(address(server.port, mode="complete", temperature=0))  # greedy: no text ends at once
                for kind, measured in zip(found.values(), pressed(page, random.Random(turn)), strict=True):
                    kind.append(measured)
    finally:
        server.close()
    return {
        name: {
            "p95_ms": round(percentile(list(chain(*turns)), 95)), "median_ms": round(median(chain(*turns))),
            "p95_of_turns": [round(percentile(times, 95)) for times in turns],
        }
        for name, turns in found.items()
    }  # fmt: skip


def pressed(page: Any, rng: random.Random) -> Iterator[list[float]]:
    """Times of the three kinds of keys."""

    def press(key: str, arm: str, argument: Any = None) -> float:
        page.evaluate(arm, argument)
        page.wait_for_timeout(rng.uniform(50, 250))  # no rhythm with the engine's steps
        page.keyboard.press(key)
        took = page.evaluate(
            "Promise.race([seen, new Promise((end) => setTimeout(end, 30_000, NaN))]).then((t) => t - pressed)"
        )
        assert not math.isnan(took), f"nothing was painted for {key}"
        return took

    prompt, first = page.locator("#prompt"), []
    for _ in range(KEYS):
        prompt.fill(text(rng))
        first.append(press("Control+Enter", FIRST_TOKEN))
        page.keyboard.press("Escape")
        page.locator("nl-complete button.primary", has_text="Continue").wait_for()
    yield first

    prompt.fill(text(rng))
    page.keyboard.press("Control+Enter")
    page.locator("nl-river details").wait_for()
    opened = []
    for at in range(min(KEYS, page.locator(".token").count())):
        page.locator(".token").nth(at).focus()
        opened.append(press("Enter", OPENED, at))
    yield opened

    page.locator("#tab-alternatives").focus()
    yield [
        press(key, VIEW, panel)
        for _ in range(KEYS // 2)
        for key, panel in (("ArrowRight", "panel-why"), ("ArrowLeft", "panel-alternatives"))
    ]


@contextmanager
def others(server: Server, turn: int) -> Iterator[None]:
    """32 clients that decode until the end of the turn."""
    client = Child(str(HERE / "server_client.py"), ready=False)
    try:
        client.tell(do="batch", port=server.port, bodies=[server.body(p, 4_000) for p in prompts(turn, CLIENTS, 16)])
        while running(server) < CLIENTS:
            time.sleep(0.1)
        yield
        assert running(server) >= CLIENTS, "their texts ended too early"
    finally:
        client.process.kill()
        client.process.wait()
    while running(server):
        time.sleep(0.1)


def running(server: Server) -> int:
    """Samples that the engine is computing."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
        (found,) = re.findall(rb"^nano_llama:num_requests_running\S* (\S+)$", answer.read(), re.MULTILINE)
    return int(float(found))


def cost(bench: "Bench") -> dict[str, Any]:
    """Tokens/s of 32 clients, and of each turn how much is left of what a server without the page makes."""
    client, seed = Child(str(HERE / "server_client.py"), ready=False), iter(range(10_000, 20_000))
    bare, served = Server(bench.model, "--no-page"), Server(bench.model)

    def rate(server: Server) -> float:
        bodies = [server.body(prompt, NEW) for prompt in prompts(next(seed), CLIENTS, PROMPT)]
        answer = client.ask(do="batch", port=server.port, bodies=bodies)
        assert all(request["whole"] for request in answer["requests"]), "a stream broke off"
        return CLIENTS * NEW / answer["seconds"]

    def opened() -> float:
        with window(bench.browser) as page:
            page.goto(address(served.port, mode="complete", prompt="Once upon a time", max_tokens=16, run=1))
            page.locator("nl-river details").wait_for()
            return rate(served)

    ways = {"no_page": lambda: rate(bare), "page": lambda: rate(served), "page_open": opened}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    try:
        rate(bare), rate(served)  # warm
        for turn in range(bench.turns):
            for name in sorted(ways, reverse=turn % 2 == 1):
                rates[name].append(ways[name]())
    finally:
        for process in (client, bare, served):
            process.close()
    left = {
        name: [with_it / without for with_it, without in zip(rates[name], rates["no_page"], strict=True)]
        for name in ("page", "page_open")
    }
    return {
        "tokens_per_second": {name: spread(values, 1) for name, values in rates.items()},
        "of_no_page": {name: spread(values, 3) for name, values in left.items()},
    }


SECTIONS: dict[str, Callable[["Bench"], dict[str, Any]]] = {"first_view": first_view, "keys": keys, "cost": cost}


@dataclass(frozen=True)
class Bench:
    model: Path
    turns: int
    browser: Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    asked = parser.parse_args()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found: dict[str, Any] = {}
    with chromium(asked.chromium) as browser:
        bench = Bench(asked.model.resolve(), asked.turns, browser)
        for name in asked.only:
            load = fingerprint()["load"]
            found[name] = {**SECTIONS[name](bench), "load": [load, fingerprint()["load"]]}
            print(name, json.dumps(found[name], indent=2), file=sys.stderr)
    write_json(RESULTS, {**known, **found, "bars": BARS, "machine": fingerprint(), "model": asked.model.name})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
