"""Bodies that are nearly right, and those that schemathesis makes of our OpenAPI document: never a failure of ours.

No status of 500, no stream without its end, no block held afterwards (helpers/api.py), and each good request in between
gets its right answer.
"""

import json
import random

import pytest

from helpers.api import TOOL_TEMPLATE, bpe, listening, post, random_llm, served
from helpers.hostile import GOOD, body_for
from nano_llama import SamplingParams

pytestmark = pytest.mark.server


def test_bodies_that_are_nearly_right():
    """bench/server_fuzz.py sends ten thousand, over sockets."""
    rng = random.Random(1)
    tokenizer = bpe(chat_template=TOOL_TEMPLATE)
    paths = [*GOOD, "/v1/completions", "/v1/chat/completions", "/v1/completions", "/v1/chat/completions"]
    statuses = set()
    good = {"prompt": "the quick", "temperature": 0, "max_tokens": 6}
    with random_llm(tokenizer) as llm, served(random_llm(tokenizer, max_num_seqs=8)) as client:
        right = llm.generate("the quick", SamplingParams(temperature=0, max_tokens=6))[0].text
        for number in range(1_000):
            path = rng.choice(paths)
            body = body_for(rng, path)
            answer = client.post(path, content=json.dumps(body).encode())
            statuses.add(answer.status_code)
            assert answer.status_code in (200, 400, 404), (path, body, answer.text)
            if answer.status_code != 200:
                assert answer.json()["error"]["message"], (path, body)
            elif answer.headers["content-type"].startswith("text/event-stream"):
                assert answer.text.endswith("data: [DONE]\n\n"), (path, body, answer.text)
            if number % 50 == 0:
                assert post(client, "/v1/completions", **good)["choices"][0]["text"] == right
    assert {200, 400} <= statuses


def test_schemathesis():
    """Statuses and shapes are those of the document."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    with listening(random_llm(max_num_seqs=8)) as address:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        judged = [
            schemathesis.checks.CHECKS.get_one(name)
            for name in (
                "not_a_server_error", "status_code_conformance", "content_type_conformance",
                "response_schema_conformance", "response_headers_conformance", "unsupported_method",
            )
        ]  # fmt: skip
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(
                max_examples=60 if operation.method == "post" else 5, deadline=None, database=None,
                suppress_health_check=list(HealthCheck), phases=[Phase.generate], derandomize=True,
            )  # fmt: skip
            @given(case=operation.as_strategy())
            def judge(case):
                case.validate_response(case.call(timeout=30), checks=judged)

            judge()
