"""docs/serving.md is right: its tables are the code's, and its examples run against the server that it starts.

The tables need nothing; the examples are marked `server`, and share one server with the real model.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from helpers.api import bpe, random_llm, served
from nano_llama.cli import main
from nano_llama.server.app import ROUTES
from nano_llama.server.metrics import Metrics
from nano_llama.server.openapi import document
from nano_llama.server.schemas import NOTED, ChatBody, CompletionBody
from nano_llama.server.settings import ServerSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text()
ADDRESS = "http://127.0.0.1:8000"
NOT_LIMITS = ("host", "port")  # numbers and names that say where, not how much


def section(title: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    found = re.search(rf"^(#+) {title}\n(.*?)(?=^#{{1,2}} |\Z)", PAGE, re.M | re.S)
    assert found, f"docs/serving.md has no section {title}"
    return found[2]


def rows(title: str) -> list[list[str]]:
    """The cells of the tables in a section, without the heads."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "`" in line]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


# -- the tables -------------------------------------------------------------------------------------------------------


def test_every_route_is_in_the_table():
    shown = {name for row in rows("The API") for name in names(row[0]) if name.split()[0] in ("GET", "POST")}
    served_here = {
        f"{method} {route.path.replace(':path', '')}" for route in ROUTES for method in route.methods - {"HEAD"}
    }
    assert shown == served_here


@pytest.mark.parametrize("body", [CompletionBody, ChatBody])
def test_every_field_is_named(body):
    text = section("Fields")
    for field in {*body.model_fields, *body.refused, *NOTED}:
        assert f"`{field}`" in text, field


def test_the_fields_of_the_tables_are_known():
    known = {*CompletionBody.model_fields, *ChatBody.model_fields, *CompletionBody.refused, *ChatBody.refused}
    assert {name for row in rows("Fields") for name in names(row[0])} <= known


def limits() -> dict[str, list[str]]:
    return {names(row[0])[0]: row[1:] for row in rows("Limits")}


def test_every_limit_is_in_the_table_with_its_default():
    defaults = {
        setting.name: setting.default
        for setting in fields(ServerSettings)
        if setting.type in (int, float, int | None, "int", "float", "int | None") and setting.name not in NOT_LIMITS
    }
    shown = {name: row[0].replace(",", "") for name, row in limits().items()}
    assert shown.keys() == defaults.keys()
    assert shown.pop("max_waiting_tokens") and defaults.pop("max_waiting_tokens") is None
    assert {name: float(value) for name, value in shown.items()} == defaults


COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
SCHEMA = {"type": "json_schema", "json_schema": {"schema": {"enum": ["a long value"]}}}
EXCEEDED = {
    "max_body_bytes": (COMPLETIONS, {"prompt": "long enough"}),
    "max_header_bytes": (COMPLETIONS, {"prompt": "a"}),
    "max_json_depth": (COMPLETIONS, {"prompt": [[1]]}),
    "max_prompts": (COMPLETIONS, {"prompt": ["a", "b"]}),
    "max_prompt_characters": (CHAT, {"messages": [{"role": "user", "content": "long"}]}),
    "max_choices": (COMPLETIONS, {"prompt": "a", "n": 2}),
    "max_logprobs": (COMPLETIONS, {"prompt": "a", "logprobs": 2}),
    "max_logit_bias": (COMPLETIONS, {"prompt": "a", "logit_bias": {"1": 1, "2": 1}}),
    "max_stop_strings": (COMPLETIONS, {"prompt": "a", "stop": ["a", "b"]}),
    "max_stop_characters": (COMPLETIONS, {"prompt": "a", "stop": "ab"}),
    "max_schema_bytes": (COMPLETIONS, {"prompt": "a", "response_format": SCHEMA}),
}


def test_limits_of_a_request_cause_the_errors_of_the_table():
    """Each limit is set to 1, and exceeded. Those of connections and of the queue: tests/server/."""
    tokenizer = bpe()
    for name, (path, body) in EXCEEDED.items():
        with served(random_llm(tokenizer, kv_cache_memory="1MB"), **{name: 1}) as client:
            answer = client.post(path, json=body)
        assert str(answer.status_code) == limits()[name][2], name
        assert name in answer.json()["error"]["message"]


def test_every_metric_is_in_the_table():
    shown = {name.partition("{")[0] for row in rows("Metrics") for name in names(row[0])}
    metrics = Metrics("p", "m", lambda: None)
    with served(random_llm()) as client:
        answer = client.get("/metrics").text
    exported = set(re.findall(r"^# TYPE nano_llama:(\S+) (?:gauge|counter|histogram)", answer, re.M))
    registered = {family.name for family in metrics.registry.collect()}
    assert shown == {name for name in exported if not name.endswith("_created")}
    assert {name.removeprefix("p:") for name in registered} <= {name.removesuffix("_total") for name in shown}


def test_the_error_codes_are_those_of_the_source():
    source = "".join(path.read_text() for path in (ROOT / "nano_llama" / "server").glob("*.py"))
    for row in rows("Errors"):
        for code in names(row[1]):
            assert re.search(rf'"{code}"', source), code


def test_every_documented_field_is_in_the_openapi_document():
    schemas = document()["components"]["schemas"]
    for body in (CompletionBody, ChatBody):
        assert schemas[body.__name__]["properties"].keys() == body.model_fields.keys()


def test_every_flag_shown_exists(capsys):
    assert main(["serve", "--help"]) == 0
    help = capsys.readouterr().out
    ours = re.sub(r"^(?:lm_eval|curl|pip) .*$", "", PAGE, flags=re.M)
    flags = set(re.findall(r"(?<=[\s`(])--[a-z-]+", ours))
    assert len(flags) > 10
    for flag in flags:
        assert flag in help, flag


# -- the examples -----------------------------------------------------------------------------------------------------


def expected(example: str) -> list[str]:
    """What the example says that it prints."""
    return re.findall(r"(?:#|//) -> (.+)$", example, re.M)


def run(*command: str, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def address(smollm2, tmp_path_factory):
    """The server that the page starts, on a free port."""
    folder = tmp_path_factory.mktemp("serving")
    marked = re.search(r"<!-- start -->\n```bash\nnano-llama (.+)\n```", PAGE)
    assert marked, "the command that starts the server is marked"
    command = [sys.executable, "-m", "nano_llama", *marked[1].split(), "--port", "0", "--json", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder, env=environment, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


@pytest.mark.server
@pytest.mark.parametrize("example", [block for block in blocks("bash") if block.startswith("curl")])
def test_curl(example, address):
    if shutil.which("curl") is None:
        pytest.skip("curl is missing")
    fails_on_errors = 'curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
    printed = run("bash", "-euc", fails_on_errors + example.replace(ADDRESS, address))
    assert expected(example)
    for text in expected(example):
        assert text in printed, printed


@pytest.mark.server
@pytest.mark.parametrize("example", blocks("python"))
def test_python(example, address):
    pytest.importorskip("openai")
    printed = run(sys.executable, "-c", example.replace(ADDRESS, address))
    assert printed.splitlines() == expected(example) != []


@pytest.mark.server
@pytest.mark.parametrize("example", blocks("js"))
def test_javascript(example, address):
    if (
        shutil.which("node") is None
        or subprocess.run(["node", "-e", "require('openai')"], capture_output=True).returncode
    ):
        pytest.skip("node or its package openai is missing")
    assert run("node", "-e", example.replace(ADDRESS, address)).splitlines() == expected(example) != []


@pytest.mark.server
def test_lm_eval(address):
    """The harness's own reading of the arguments; its tasks need a network."""
    pytest.importorskip("lm_eval")
    pytest.importorskip("tenacity")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    (arguments,) = re.findall(r"--model_args (\S+)", PAGE)
    model = LocalCompletionsAPI.create_from_arg_string(arguments.replace(ADDRESS, address))
    pairs = [("The capital of France is", " Paris"), ("The capital of France is", " purple")]
    (right, _), (wrong, _) = model.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs])
    assert right > wrong
