"""The pages in a browser: no sideways scrolling on a phone, nothing loaded, no serious finding of axe.

The browser is the system's Chromium (Debian's package), run by Playwright; both come with the extra `judges` and CI.
"""

import math
import shutil

import pytest

pytestmark = pytest.mark.book
sync_api = pytest.importorskip("playwright.sync_api", reason="the extra `judges` is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
VIOLATIONS = {"resultTypes": ["violations"]}
# axe measures the contrast of every word, for half a minute a page: of code and formulas, one of each kind is enough.
ONE_OF_EACH = """() => {
    const seen = new Set(), kind = node => node.tagName + node.className + (node.getAttribute("display") || "");
    for (const node of document.querySelectorAll(".highlight span, math")) {
        if (seen.has(kind(node))) node.replaceWith(node.textContent);
        seen.add(kind(node));
    }
    dispatchEvent(new Event("resize"));  // other boxes may scroll now
}"""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def pages(site) -> list[str]:
    found = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    return [name for name in found if not name.startswith(("code/", "genindex"))]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_pages_fit_load_nothing_and_are_accessible(browser, whole, width, theme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme)
    outside: list[str] = []
    context.on("request", lambda asked: None if asked.url.startswith("file:") else outside.append(asked.url))
    page, wide, serious = context.new_page(), [], []
    for name in pages(whole.site):
        page.goto(f"file://{whole.site / name}")
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(name)
        if width == 390:  # what axe sees depends on the theme, hardly on the width
            page.evaluate(ONE_OF_EACH)
            found = axe.Axe().run(page, options=VIOLATIONS).response["violations"]
            serious += [(name, v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    context.close()
    assert not wide and not outside and not serious


def test_search_works_from_a_disk(browser, whole):
    page = browser.new_page()
    page.goto(f"file://{whole.site}/search.html?q=perplexity")
    page.locator("#search-results a[href*='01_language_model']").first.wait_for(timeout=10_000)
    page.close()


def test_a_trace_is_clicked_through(browser, book):
    steps = "steps = [{'says': f'step {n}', 'rows': [{'boxes': ['l', n]}]} for n in range(3)]"
    cell = f"# One\n\n```{{cell}} a\n{steps}\n```\n\n```{{trace}} steps\n:title: Three\n```\n"
    built = book({"chapters/one": cell})
    page = browser.new_page()
    page.goto(f"file://{built.site}/chapters/one.html")
    assert page.locator(".trace li:visible").all_inner_texts()[0].startswith("step 0")
    page.get_by_role("button", name="Next").click()
    assert page.locator(".trace li:visible").count() == 1
    assert page.locator(".trace li:visible").inner_text().startswith("step 1")
    page.close()


def test_the_river_of_the_page(browser, book):
    """The component itself, over what the cell computed; without scripts its table."""
    cell = "answer = [{'id': n, 'text': text, 'logprob': -n} for n, text in enumerate(['A', ' b', '<i>', '\\n'])]"
    built = book({"chapters/one": f"# One\n\n```{{cell}} a\n{cell}\n```\n\n```{{river}} answer\n:title: Four\n```\n"})
    address = f"file://{built.site}/chapters/one.html"
    page, faults = browser.new_page(), []
    page.on("console", lambda said: faults.append(said.text))
    page.goto(address)
    tokens = page.locator("nl-river .token")
    assert tokens.all_text_contents() == ["A", " b", "<i>", "\n"]
    tints = tokens.evaluate_all("all => all.map(one => Number(one.style.getPropertyValue('--much')))")
    bits = [n / math.log(2) for n in range(4)]
    assert tints == pytest.approx([bit / 10 for bit in bits], abs=1e-3)
    shown = page.locator("nl-river tbody tr td:last-child").all_text_contents()
    assert [float(text) for text in shown] == pytest.approx(bits, abs=6e-3)
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == " b"
    page.close()
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.goto(address)
    assert plain.locator("nl-river tbody td:last-child").all_text_contents() == shown
    plain.close()
    assert not faults
