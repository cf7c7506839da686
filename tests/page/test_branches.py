"""The tree of branches: each block once, where it is kept; and what the server says of it."""

import pytest

pytestmark = pytest.mark.page
STATE = {"prompt": "the quick brown fox jumps over the lazy dog", "run": 1, "max_tokens": 40, "seed": 7}


def branch(page, at):
    """Take another token at a position of the text that is shown."""
    page.locator("#tab-alternatives").click()
    page.locator("nl-river .token").nth(at).click()
    page.locator(f"nl-alternatives[data-at='{at}']").wait_for()
    page.locator("nl-alternatives tr:not(.chosen) button").first.click()
    page.locator(f".token.picked[data-at='{at}']").wait_for()
    page.locator("nl-complete .hint", has_text="tokens:").wait_for()


def test_a_tree_of_shared_blocks(opened):
    page = opened.go(**STATE)
    branch(page, 30)
    page.locator("#tab-branches").click()
    page.locator("nl-branches [role=option]").first.click()
    branch(page, 12)
    page.locator("#tab-branches").click()
    page.locator("nl-branches .tree").wait_for()
    size = opened.ask("/inspect/model")["engine"]["block_size"]
    prompt = len(opened.ask("/inspect/tokens", {"prompt": STATE["prompt"]})["tokens"])
    rows = [row.locator("td").all_text_contents() for row in page.locator("nl-branches tbody tr").all()]
    totals, shared = [int(row[2]) for row in rows], [int(row[3]) for row in rows]
    assert shared == [0, (prompt + 30) // size, (prompt + 12) // size] and shared[1] > shared[2] > 0
    cells = page.locator("nl-branches .cell")
    drawn = [(int(cell.get_attribute("data-block")), cell.get_attribute("data-texts")) for cell in cells.all()]
    having = [[text for text in (1, 2, 3) if text == 1 or block < shared[text - 1]] for block in range(totals[0])]
    expected = [(block, " ".join(map(str, texts))) for block, texts in enumerate(having)]
    expected += [(block, "2") for block in range(shared[1], totals[1])]
    expected += [(block, "3") for block in range(shared[2], totals[2])]
    assert drawn == expected
    assert page.locator("nl-branches .cell.shared").count() == shared[1]
    said = page.locator("nl-branches p").first.text_content()
    assert f"have {sum(totals)} blocks; {len(drawn)} are enough" in said
    lefts = [float(fork.get_attribute("x1").strip("%")) for fork in page.locator("nl-branches .fork").all()]
    assert lefts == sorted(lefts, reverse=True), "no line crosses a row"
    page.locator("nl-branches [role=option]").nth(1).click()
    opened.follow().locator("nl-branches [role=option]").nth(2).wait_for()
    page.locator("nl-branches [role=option][aria-selected=true][data-at='1']").wait_for()
    again = [(int(cell.get_attribute("data-block")), cell.get_attribute("data-texts")) for cell in cells.all()]
    assert again == expected, "the link holds the tree, and which of its texts is shown"
    for row in rows[1:]:
        assert int(row[4]) == int(row[3]) * size, "what the server found kept are the blocks that are drawn as shared"
