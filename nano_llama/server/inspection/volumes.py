"""POST /inspect/volumes: one position, by three volumes: the logits of the engine that serves, those of Volume 1 in
float32, and those of Volume 2 where torch is installed; how far each is from Volume 1.

Tests: tests/server/page/test_inspect_volumes.py.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from nano_llama.core.divergence import kl
from nano_llama.core.sampling import SamplingParams
from nano_llama.server.errors import ApiError, json_response
from nano_llama.server.inspection.next_token import logsumexp, served_row
from nano_llama.server.inspection.replay import check_fields, replayer_of
from nano_llama.server.inspection.schemas import VolumesBody
from nano_llama.server.inspection.tokens import text_of
from nano_llama.server.models import served_model
from nano_llama.server.replayer import Run
from nano_llama.server.streaming import unless_left
from nano_llama.server.usage import service_of
from nano_llama.server.validation import read_as
from nano_llama.vol1_numpy.ops.array import Array

if TYPE_CHECKING:
    from nano_llama.vol3_engine.llm import LLM

LISTED = 16  # of the likeliest
REFERENCE = "volume1"
GREEDY = SamplingParams(temperature=0.0, max_tokens=1)


async def volumes(http: HttpRequest) -> Response:
    service = service_of(http)
    service.engine.require_room()
    body = await read_as(http, VolumesBody)
    replayer = replayer_of(service, served_model(service, body.model))
    check_fields(body, ("token",), service.llm.config)
    if len(body.tokens) >= (context := service.llm.config.max_position_embeddings):
        message = f"tokens: after {len(body.tokens)} tokens none can come: the model's context is {context}."
        raise ApiError(400, message, code="context_length_exceeded", param="tokens")
    preparing = service.engine.prepare(body.tokens, GREEDY, cache_salt=service.cache_salt(http))
    request = await unless_left(http, preparing)
    rows = {"engine": await served_row(http, service, request)}
    seconds: dict[str, float] = {}

    def work(run: Run) -> None:
        began = time.perf_counter()
        rows["volume1"] = volume1(run, body.tokens)
        seconds["volume1"] = round(time.perf_counter() - began, 4)
        run.check()
        if run.volume2 is not None:
            began = time.perf_counter()
            rows["volume2"] = run.volume2(run.replay.weights, run.replay.config, body.tokens)
            seconds["volume2"] = round(time.perf_counter() - began, 4)

    await unless_left(http, replayer.run(work))
    described = {"position": len(body.tokens), "seconds": seconds, "numbers": numbers_of(service.llm)}
    return json_response(described | compared(rows, body.token, service.llm))


def volume1(run: Run, tokens: Sequence[int]) -> Array:
    """(T,) -> (V,), after the last token."""
    for layer in run.layers(np.array(tokens)):
        last = layer.stream[-1]  # (D,)
    return run.replay.logits(last)


def numbers_of(llm: "LLM") -> dict[str, Any]:
    """What each computes in; of the engine, the kinds in which it holds weights and the cache, where it says them."""
    runner = llm.engine.runner
    return {
        "engine": {
            "runner": type(runner).__name__,
            "weights": list(getattr(runner, "weight_kinds", ())),
            "kv_cache": getattr(runner, "kv_cache_dtype", None),
        },
        "volume1": "float32",
        "volume2": "float32",
    }


def compared(rows: dict[str, Array], token: int | None, llm: "LLM") -> dict[str, Any]:
    """Of each volume the logits of the reference's likeliest tokens and of `token`, and how far it is from it."""
    reference = rows[REFERENCE]
    ids = np.argsort(-reference, kind="stable")[:LISTED].tolist()
    if token is not None and token not in ids:
        ids.append(token)
    return {
        "vocab_size": len(reference),
        "reference": REFERENCE,
        "ids": ids,
        "texts": [text_of(llm.tokenizer, number) for number in ids],
        "volumes": {name: {"logits": row[ids].astype(float).tolist(), **beside(row, reference)}
                    for name, row in rows.items()},
    }  # fmt: skip


def beside(row: Array, reference: Array) -> dict[str, Any]:
    """How far one volume's logits are from another's.    (V,), (V,)"""
    return {
        "logsumexp": logsumexp(row),
        "choice": int(row.argmax()),
        "largest_difference": float(np.abs(row.astype(np.float64) - reference).max()),
        "kl": float(kl(reference, row)),
    }
