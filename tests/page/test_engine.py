"""The views of the engine: blocks, timeline, roofline. They show the engine's own numbers, of others only counts, and a
recorded trace in place of the engine."""

import json
import re
import time
from collections import Counter
from statistics import median

import numpy as np
import pytest

from helpers.api import bpe, random_llm
from helpers.events import complete, heard, of, until
from helpers.page import a_window, drawn, flaws, unfold
from helpers.served import GatedRunner, Served
from nano_llama import LLM
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine import roofline as memory
from nano_llama.vol3_engine.trace_files import read_trace

pytestmark = pytest.mark.page

THEIRS = "page-fedcba9876543210"


class TimedRunner(GatedRunner):
    """Says that a step spends 3 ms in two phases, and makes it last as long as a test likes."""

    phases = ("attention", "head")
    pause = 0.0

    def __init__(self, **config):
        super().__init__(kv_bytes_per_token=8, **config)
        self.seconds: dict[str, float] = {}

    def time_phases(self, on: bool) -> None:
        self.seconds = dict.fromkeys(self.phases, 0.0) if on else {}

    def execute(self, batch):
        for name, seconds in zip(self.seconds, (0.002, 0.001), strict=False):
            self.seconds[name] += seconds
        time.sleep(0.003 + self.pause)
        return super().execute(batch)

    def logits(self, text):
        return super().logits(text)[: self.config.vocab_size]


@pytest.fixture(scope="module")
def engine():
    """A server that nobody else uses."""
    tokenizer = bpe(257, chat_template=None)
    runner = TimedRunner(vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    runner.allow()
    with Served(runner, load=lambda: LLM.from_runner(runner, tokenizer, max_num_seqs=8)) as served:
        yield served


@pytest.fixture
def watched(browser, engine):
    engine.runner.pause = 0.0
    engine.until(lambda: not engine.service.loaded or not engine.stats().busy)
    with a_window(browser, engine) as opened:
        yield opened


def watch(opened, view):
    """Open a view -> the page, and the name under which its requests run."""
    with opened.page.expect_request("**/inspect/events") as request:
        opened.go(view=view)
    return opened.page, json.loads(request.value.post_data)["own"]


def press(page, name):
    page.get_by_role("button", name=name).locator("visible=true").click()


def send(page):
    press(page, "Send a dozen readers")


def steps_of(page):
    """The numbers of the steps that the page knows of."""
    return page.evaluate("import('/page/lib/engine.js').then(({engine}) => engine.steps.map(({step}) => step))")


def cells_of(table):
    return [[cell.text_content() for cell in row.locator("td").all()] for row in table.locator("tbody tr").all()]


def test_blocks_are_the_engines(watched, engine):
    """Amid the work as the step's block tables say, and when it is done as the engine's own block pool."""
    page, own = watch(watched, "blocks")
    pool = engine.service.llm.engine.scheduler.pool
    known = set(pool._evictable)
    with heard(f"http://127.0.0.1:{engine.port}", own) as events:
        engine.runner.pause = 0.1
        send(page)
        page.locator(".cells .shared").first.wait_for()
        press(page, "Hold")
        unfold(page.locator("nl-blocks .twin"))
        drawn(page)
        number = steps_of(page)[-1]
        engine.runner.pause = 0.0
        until(lambda: len(of(events, "ended")) == 12)
        step = next(event for event in of(events, "step") if event["step"] == number)
        ended = {event["sequence"] for event in events[: events.index(step)] if event["event"] == "ended"}
        tables = [row["blocks"] for row in step["rows"] if row["sequence"] not in ended]
        references = Counter(block for table in tables for block in table)
        rows = cells_of(page.locator("nl-blocks table"))
        assert {int(row[0]): int(row[3]) for row in rows if row[1] == "held"} == references
        assert {int(cell.get_attribute("data-at")) for cell in page.locator(".cells .held").all()} == set(references)
        assert page.locator("nl-blocks .tally.mine").text_content() == str(step["blocks"]["held"])
        shared, many = references.most_common(1)[0]
        cell = page.locator(f".cells [data-at='{shared}']")
        assert cell.text_content() == f"×{many}" and many > 1, "some begin alike"
        cell.click()
        page.locator("nl-blocks .chip", has_text=re.compile("keeper|evening|stairs|lamp|sea|book|ever")).wait_for()
        press(page, "Go on")
    page.locator("nl-blocks .tally.mine", has_text=re.compile("^0$")).wait_for()
    kept = {int(row[0]) for row in cells_of(page.locator("nl-blocks table")) if row[1] == "kept"}
    assert kept and kept | known == set(pool._evictable)
    assert page.locator("nl-blocks .tally.kept").text_content() == str(len(pool._evictable))
    users = {row["sequence"] for step in of(events, "step") for row in step["rows"] if shared in row["blocks"]}
    assert shared in kept and cell.text_content() == f"×{len(users)}", "who shared it is still said"
    told = page.locator("nl-blocks p", has_text="shared by the requests").text_content()
    assert len(re.search("requests ([0-9, ]+),", told)[1].split(",")) == len(users)


def test_a_step_is_its_packed_batch(watched, engine):
    page, own = watch(watched, "timeline")
    with heard(f"http://127.0.0.1:{engine.port}", own) as events:
        send(page)
        until(lambda: len(of(events, "ended")) == 12)
    steps, arrived = of(events, "step"), {event["sequence"]: event for event in of(events, "arrived")}
    columns = page.locator("nl-timeline .lanes [role=option]")
    until(lambda: columns.count() == len(steps))
    unfold(page.locator("nl-timeline .twin"))
    table = [[int(cells[0]), int(cells[2]), int(cells[-1])] for cells in cells_of(page.locator("nl-timeline .twin"))]
    last = steps[-60:]
    assert table == [[step["step"], sum(row["count"] for row in step["rows"]), step["waiting"]] for step in last]
    mixed = next(at for at, step in enumerate(steps) if len({row["count"] for row in step["rows"]}) > 1)
    columns.nth(mixed - 1 if mixed else 1).click()  # then by keyboard
    page.keyboard.press("ArrowRight" if mixed else "ArrowLeft")
    page.locator("nl-timeline [aria-selected=true]").wait_for()
    assert columns.nth(mixed).get_attribute("aria-selected") == "true"
    shown = page.locator("nl-timeline [aria-label='The packed batch'] table")
    shown.locator("td", has_text="[").first.wait_for()
    start = 0
    for cells, row in zip(cells_of(shown), steps[mixed]["rows"], strict=True):
        end = start + row["count"] - 1
        assert cells[4] == (str(start) if end == start else f"{start} to {end}")
        prompt = min(max(arrived[row["sequence"]]["prompt_tokens"] - row["position"], 0), row["count"])
        assert [int(cells[2]), int(cells[3])] == [prompt, row["position"]]
        assert json.loads(cells[6]) == row["blocks"] and cells[7] == ("yes" if row["chooses"] else "no")
        start = end + 1
    assert page.locator("nl-timeline .packed i").count() == start
    assert page.locator("nl-timeline .packed i.prompt").count() == sum(int(row[2]) for row in cells_of(shown))


def test_the_ids_of_a_step_are_those_of_the_text(watched, engine):
    """Of what the page itself writes: a prompt as /inspect/tokens reads it, and then one token a step."""
    page, _ = watch(watched, "timeline")
    page.locator("#prompt").fill("the quick brown fox")
    page.locator("#prompt").press("Control+Enter")
    written = page.locator("nl-complete .hint", has_text="tokens:")
    written.wait_for()
    ids = [token["id"] for token in watched.ask("/inspect/tokens", {"prompt": "the quick brown fox"})["tokens"]]
    columns, tokens = page.locator("nl-timeline .lanes [role=option]"), int(written.text_content().split()[0])
    until(lambda: columns.count() >= tokens)  # one that comes would move the others beneath the click
    columns.first.click()
    text = page.locator("nl-timeline [aria-label='The packed batch'] tbody td").nth(1)
    until(lambda: text.text_content() == "the␣quick␣brown␣fox")
    first = page.locator("nl-timeline [aria-label='The packed batch'] tbody td").nth(5)
    assert first.text_content() == f"[{', '.join(map(str, ids[:6]))}, …]"


def test_a_link_to_a_step_and_to_a_block(watched, engine):
    """Their numbers do not outlive an engine: the link holds a place in the text, and finds what has it now."""
    page = watched.go(view="timeline", prompt="the quick brown fox jumps over it", run=1, max_tokens=30)
    columns, chosen = page.locator("nl-timeline .lanes [role=option]"), "[role=option][aria-selected=true]"
    until(lambda: columns.count() >= 30)
    columns.nth(9).click()  # of a block that is whole in the end: others are not kept
    batch = page.locator("nl-timeline [aria-label='The packed batch'] tbody")

    def packed():
        """The position and the text of its only row."""
        row = batch.locator("td").all_text_contents()
        return (row[3], row[1]) if row else None

    until(lambda: packed() and packed()[1])
    before = packed()
    page = watched.follow()
    page.locator(f"nl-timeline {chosen}").wait_for()
    until(lambda: packed() == before)
    page.locator("#tab-blocks").click()
    page.locator(f"nl-blocks {chosen}").wait_for()
    page.locator("nl-blocks p", has_text=re.compile("In it: .* of your text")).wait_for()
    told = page.locator("nl-blocks .chip").text_content()
    assert before[1] in told
    watched.follow().locator("nl-blocks .chip").wait_for()
    until(lambda: page.locator("nl-blocks .chip").text_content() == told)


@pytest.mark.parametrize("view", ["blocks", "timeline"])
def test_of_others_only_counts(watched, engine, view):
    page, _ = watch(watched, view)
    until(lambda: engine.service.feed._listeners == 1)
    complete(f"http://127.0.0.1:{engine.port}", THEIRS, prompt="a secret zebra", max_tokens=20, ignore_eos=True)
    if view == "timeline":
        page.locator("nl-timeline .lanes [role=option]").nth(19).click()
        page.locator("nl-timeline p", has_text="Grey: 1 rows of 1 requests of others").wait_for()
        assert page.locator(".packed i.others").count() == 1 and page.locator(".lanes i").count() == 0
    else:
        page.locator("nl-blocks .tally.kept", has_text=re.compile("[1-9]")).wait_for()
        assert page.locator(".cells .held, .cells .kept").count() == 0
    assert "zebra" not in page.content() and not re.search("e␣?zeb", page.content())


def test_hold_and_go_on(watched, engine):
    page, own = watch(watched, "timeline")
    columns = page.locator("nl-timeline .lanes [role=option]")
    engine.runner.pause = 0.1
    with heard(f"http://127.0.0.1:{engine.port}", own) as events:
        send(page)
        columns.nth(1).wait_for()
        press(page, "Hold")
        drawn(page)
        before = columns.count()
        page.locator("nl-timeline .hint", has_text=re.compile("Held: [1-9][0-9]* events wait")).wait_for()
        until(lambda: len(of(events, "step")) > before + 5)
        assert columns.count() == before
        press(page, "Go on")
        columns.nth(before + 5).wait_for()
        press(page, "Stop them")
        until(lambda: "abort" in {event["reason"] for event in of(events, "ended")})


def test_the_roof_is_bandwidth_over_bytes(watched, engine, monkeypatch):
    monkeypatch.setattr(memory, "read_bandwidth", lambda threads: 3e6)
    engine.service.bandwidth = None
    page, own = watch(watched, "roofline")
    page.locator("nl-roofline", has_text="not measured yet").wait_for()
    machine = watched.ask("/inspect/roofline")
    with heard(f"http://127.0.0.1:{engine.port}", own, time_phases=True) as events:
        send(page)
        until(lambda: len(of(events, "ended")) == 12)
    until(lambda: len(steps_of(page)) == len(of(events, "step")))
    page.get_by_role("button", name="Measure the memory").click()
    page.locator("nl-roofline .roof").wait_for()
    unfold(page.locator("nl-roofline .twin"))
    only_write = [step for step in of(events, "step") if all(row["count"] == 1 for row in step["rows"])]
    rows = cells_of(page.locator("nl-roofline .twin"))
    assert [int(row[0]) for row in rows] == sorted({len(step["rows"]) for step in only_write})
    for row in rows:
        steps = [step for step in only_write if len(step["rows"]) == int(row[0])]
        rate = median(len(step["rows"]) / step["seconds"] for step in steps)
        context = np.mean([sum(one["position"] + 1 for one in step["rows"]) for step in steps])
        roof = int(row[0]) * 3e6 / (machine["weight_bytes"] + context * machine["kv_bytes_per_token"])
        assert int(row[1]) == len(steps) and number(row[2]) == pytest.approx(rate, rel=0.01)
        assert number(row[4]) == pytest.approx(roof, rel=0.01)
        assert number(row[5]) == pytest.approx(100 * rate / roof, abs=0.1 + rate / roof)
    parts = {row[0]: [number(row[2]), number(row[3])] for row in cells_of(page.locator("nl-roofline .bars"))}
    assert [parts["attention"][0], parts["head"][0]] == [2.0, 1.0]
    assert sum(share for _, share in parts.values()) == pytest.approx(100, abs=0.2)


def number(text):
    return float(text.replace(",", "").strip(" %<"))


def test_what_is_not_timed_is_said(browser):
    with Served(load=lambda: random_llm(bpe(chat_template=None))) as served, a_window(browser, served) as opened:
        opened.go(view="roofline")
        opened.page.locator("nl-roofline .hint", has_text="NumpyRunner does not time its parts").wait_for()


def test_a_recorded_trace_is_played(browser, tmp_path):
    """In place of the engine: without its texts, which nobody has."""
    tokenizer = bpe(chat_template=None)
    path = tmp_path / "trace.jsonl"
    prompts = [tokenizer.encode("the quick brown fox jumps over the lazy dog, " * 3 + end) for end in ("a", "b", "c")]
    with random_llm(tokenizer, trace=path) as llm:
        llm.generate(prompts, SamplingParams(max_tokens=6, ignore_eos=True))
    trace = read_trace(path)
    trace[0]["max_num_batched_tokens"] = 77  # of an engine with other settings than the one that serves
    steps = [event for event in trace if event["event"] == "step"]
    with Served(load=lambda: random_llm(tokenizer)) as served, a_window(browser, served) as opened:
        served.service.trace = trace
        page = opened.go(view="timeline")
        page.locator("nl-timeline .hint", has_text="The recording is over.").wait_for()
        assert page.locator("#tab-roofline").count() == 0, "a trace says nothing about memory"
        page.locator("nl-timeline p", has_text="at most 77 tokens").wait_for()
        assert page.locator("nl-timeline .lanes [role=option]").count() == len(steps)
        page.locator("nl-timeline .lanes [role=option]").first.click()
        rows = cells_of(page.locator("nl-timeline [aria-label='The packed batch'] table"))
        assert [json.loads(row[6]) for row in rows] == [row["blocks"] for row in steps[0]["rows"]]
        assert {text for row in rows for text in (row[1], row[5])} == {"not known here"}
        assert f"step={steps[0]['step']}" in page.url
        page.locator("#tab-blocks").click()
        kept = steps[-1]["blocks"]["kept"]
        page.locator(".cells .kept").nth(kept - 1).wait_for()
        assert page.locator(".cells .kept").count() == kept > 0
        page.locator(".cells .kept").first.click()
        number, address = page.locator(".cells [aria-selected=true]").get_attribute("data-at"), page.url
        page.goto("about:blank")
        page.goto(address)
        page.locator(f".cells [data-at='{number}'][aria-selected=true]").wait_for()
        page.locator("#tab-timeline").click()
        page.locator("nl-timeline .lanes [aria-selected=true]").wait_for()
        page.locator("#tab-blocks").click()
        module = "import('/page/lib/engine.js')"
        page.evaluate(f"{module}.then(({{engine}}) => {{ window.first = engine.settings }})")
        press(page, "Play again")
        until(lambda: page.evaluate(f"{module}.then(({{engine}}) => engine.done && engine.settings !== window.first)"))
        until(lambda: page.locator(".cells .kept").count() == kept)


def test_axe_finds_nothing_amid_the_work(browser, engine):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra `judges` is not installed")
    with a_window(browser, engine, bypass_csp=True) as opened:  # axe's script is not ours
        page, _ = watch(opened, "timeline")
        send(page)
        page.locator("nl-timeline .lanes [role=option]").nth(9).click()
        for view in ("timeline", "blocks", "roofline"):
            page.locator(f"#tab-{view}").click()
            unfold(page.locator(f"#panel-{view} .twin"))
            drawn(page)
            assert not flaws(axe, page), view
