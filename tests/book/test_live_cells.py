"""`learn --serve` in a browser: cells run in order, can be changed, draw; the page still fits a phone and suits axe."""

import shutil
import threading

import pytest

from nano_llama.learn.serve import BookServer

pytestmark = pytest.mark.book
sync_api = pytest.importorskip("playwright.sync_api", reason="the extra `judges` is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

PAGE = """# One

```{cell} first
x = 2
print("the first says", x)
```

```{cell} second
:folded: the second

print("twice is", 2 * x)
```

```{cell} drawing
:figure: a line

from matplotlib import pyplot
pyplot.plot([1, x])
```
"""


@pytest.fixture
def page(book):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    built = book({"chapters/one": PAGE})
    assert built.code == 0, built.said
    with BookServer(built.site) as server, sync_api.sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.set_default_timeout(30_000)
        page.goto(server.url.replace("index.html", "chapters/one.html"))
        yield page
        browser.close()
        server.shutdown()


def test_cells_run_change_and_draw(page):
    first, second, drawing = (page.locator(f"#cell-{name}") for name in ("first", "second", "drawing"))
    first.locator(".highlight pre").fill('x = 5\nprint("changed to", x)')
    first.get_by_role("button", name="Run").click()
    first.get_by_text("changed to 5", exact=True).wait_for()
    assert first.locator(".printed").count() == 1, "in place of what the build printed"

    second.locator("summary").click()
    second.get_by_role("button", name="Run").click()
    second.get_by_text("twice is 10").wait_for()

    second.locator(".highlight pre").fill("1 / 0")
    second.locator(".highlight pre").press("Control+Enter")
    second.get_by_text("ZeroDivisionError").wait_for()

    drawing.get_by_role("button", name="Run").click()
    drawing.get_by_text("ZeroDivisionError").wait_for()  # the cell above fails first
    second.locator(".highlight pre").fill("pass")
    drawing.get_by_role("button", name="Run").click()
    drawing.locator("img.picture").wait_for()
    assert drawing.locator("img.picture").evaluate("image => image.complete && image.naturalWidth > 100")

    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    found = axe.Axe().run(page).response["violations"]
    assert not [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]


def test_a_page_that_is_only_a_file_has_no_button(book):
    built = book({"chapters/one": PAGE})
    assert "run.js" not in built.page("chapters/one")
