"""GET /inspect/source: the lines of Volume 1 that a replay runs, read from the package: the very functions, by name.

Tests: tests/server/page/test_inspect_source.py.
"""

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

import nano_llama
from nano_llama.server.errors import json_response
from nano_llama.vol1_numpy import layer
from nano_llama.vol1_numpy.ops.attention import attention_weights
from nano_llama.vol1_numpy.ops.softmax import softmax_forward
from nano_llama.vol1_numpy.replay import OPS, Replay

# In the order in which a forward pass comes to them, then what the views make of it.
STAGES: dict[str, Callable] = {
    "embedding": Replay.embed,
    "layers": Replay.layers,
    "rmsnorm": OPS.rmsnorm.forward,
    "linear": OPS.linear.forward,
    "attention_block": layer.attention_block_forward,
    "rope": OPS.rope.forward,
    "attention": OPS.attention.forward,
    "softmax": softmax_forward,
    "mlp": layer.mlp_forward,
    "swiglu": OPS.swiglu.forward,
    "logits": Replay.logits,
    "attention_weights": attention_weights,
    "contributions": Replay.contributions,
}


async def source(http: HttpRequest) -> Response:
    return json_response({"stages": [lines_of(name) for name in STAGES]})


@cache
def lines_of(stage: str) -> dict[str, Any]:
    """Where the function stands in the package, and its text."""
    function = STAGES[stage]
    text, first = inspect.getsourcelines(function)
    file = Path(inspect.getfile(function)).relative_to(Path(nano_llama.__file__).parent.parent)
    code = inspect.cleandoc("\n" + "".join(text))  # a method's lines are indented
    return {"name": stage, "function": function.__qualname__, "file": file.as_posix(), "line": first, "code": code}
