"""Under a rule: how much it left at each token of a text, and the stretches that it wrote alone."""

import pytest

pytestmark = pytest.mark.page
STATE = {"prompt": "Who:", "view": "grammar", "run": 1, "at": 0, "seed": 7, "max_tokens": 24,
         "form": "regex", "rule": "(fox|dog) [ab]{3} said: over the lazy"}  # fmt: skip


def test_forced_stretches_are_the_servers(opened):
    page = opened.go(**STATE)
    page.locator("nl-grammar .bound").wait_for()
    body = {"prompt": STATE["prompt"], "max_tokens": 24, "seed": 7, "temperature": 0.8, "return_token_ids": True,
            "structured_outputs": {"regex": STATE["rule"]}, "logprobs": 0}  # fmt: skip
    written = opened.ask("/v1/completions", body)["choices"][0]
    ids, prompt = written["token_ids"], written["prompt_token_ids"]
    left = []
    for at in range(len(ids)):
        asked = {**body, "prompt": prompt, "output": ids[:at]}
        for name in ("max_tokens", "return_token_ids", "logprobs"):
            asked.pop(name)
        cuts = opened.ask("/inspect/next", asked)["cuts"]
        left.append(next((cut["left"] for cut in cuts if cut["name"] == "constraint"), None))
    assert 1 in left and max(left) > 1, "some are forced, some are not"
    rows = page.locator("nl-grammar table", has_text="What the rule left").locator("tbody tr")
    assert [int(row.locator("td").nth(2).text_content()) for row in rows.all()] == left
    forced = [count == 1 for count in left]
    assert page.locator("nl-grammar .bound + .hint").count() == 1
    heading = page.locator("nl-grammar p:has(+ .bound)").text_content()
    assert heading.startswith(f"{sum(forced)} of {len(ids)} tokens were forced")
    stretches = sum(now and not before for before, now in zip([False, *forced], forced, strict=False))
    assert page.locator("nl-grammar .forced").count() == stretches
    shown = "".join(page.locator("nl-grammar .bound > span").all_text_contents())
    assert shown == "".join(page.locator("nl-river .token").all_text_contents())
