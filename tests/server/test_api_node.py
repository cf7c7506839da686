"""The official npm client, unchanged, against a real server. Skipped without node, or where it does not find `openai`.

npm install openai && NODE_PATH=$PWD/node_modules pytest -m server tests/server/test_api_node.py
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.api import listening, scripted_llm

pytestmark = pytest.mark.server
SCRIPT = Path(__file__).with_name("openai_client.cjs")


def node(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["node", *arguments], capture_output=True, text=True, timeout=60)


def test_the_npm_client():
    if shutil.which("node") is None or node("-e", "require('openai')").returncode:
        pytest.skip("node or its package openai is missing")
    with listening(scripted_llm({"<assistant>": "Hello, 世界!", "Go ": "on"})) as address:
        ran = node(str(SCRIPT), f"{address}/v1")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["plain"] == found["streamed"] == found["helper"] == "Hello, 世界!"
    assert bytes(found["bytes"]).decode() == "Hello, 世界!<|endoftext|>"
    assert found["usage"] == found["streamedUsage"]
    assert found["texts"] == ["on"] * 4 and found["models"] == ["tiny"]
    assert found["errors"] == [
        ["NotFoundError", 404, "model_not_found", "model"],
        ["BadRequestError", 400, None, "temperature"],
        ["BadRequestError", 400, "context_length_exceeded", "messages"],
        ["BadRequestError", 400, "unknown_field", "unknown"],
    ]
