"""POST /inspect/replay: what happens inside the model while it reads these ids: recomputed by Volume 1, in float32.

    view "lens"         after each layer the likeliest tokens, if the model ended there; the ranks of pinned tokens
    view "attention"    whom each head of a layer attends to; without `layer`: of all layers, in one byte each
    view "attribution"  what the embedding and each attention and MLP add to the logit of a token

The answer is binary: the length of a JSON head (4 bytes, little-endian), the head, then the arrays that it describes.
Tests: tests/server/page/test_inspect_replay.py.
"""

import json
import struct
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from nano_llama.server.errors import ApiError, limit_exceeded
from nano_llama.server.inspection.limits import MAX_GRID, MAX_REPLAYED
from nano_llama.server.inspection.schemas import ReplayBody, VolumesBody
from nano_llama.server.models import served_model
from nano_llama.server.replayer import Replayer, Run
from nano_llama.server.streaming import unless_left
from nano_llama.server.usage import service_of
from nano_llama.server.validation import read_as
from nano_llama.vol1_numpy.ops.array import Array

if TYPE_CHECKING:
    from nano_llama.core.config import LlamaConfig
    from nano_llama.server.service import Service

LISTED = 5  # tokens of each cell of the lens
ALIGNED = 8  # bytes: so that a browser can lay an array of any type over them
Arrays = dict[str, Array]


async def replay(http: HttpRequest) -> Response:
    service = service_of(http)
    body = await read_as(http, ReplayBody)
    replayer = replayer_of(service, served_model(service, body.model))
    view, read = VIEWS[body.view]
    check_fields(body, read, service.llm.config)

    def work(run: Run) -> bytes:
        began = time.perf_counter()
        head, arrays = view(run, body)
        head |= {"view": body.view, "by": "Volume 1, float32", "seconds": round(time.perf_counter() - began, 4)}
        return packed(head, arrays)

    content = await unless_left(http, replayer.run(work))
    return Response(content, media_type="application/octet-stream")


def replayer_of(service: "Service", model: str) -> Replayer:
    """Raise ApiError for a model that cannot be replayed."""
    if service.replayer is None or service.adapter_of(model) is not None:
        raise ApiError(400, "Only a base model that was loaded from a file is replayed.", code="unsupported")
    return service.replayer


def check_fields(body: ReplayBody | VolumesBody, read: tuple[str, ...], config: "LlamaConfig") -> None:
    """Raise ApiError for too long a text, for what the view does not read, and for what the model does not have."""
    length, vocab_size = len(body.tokens), config.vocab_size
    if length > MAX_REPLAYED:
        raise limit_exceeded("tokens", length, "of a replay", MAX_REPLAYED)
    limits = {"layer": config.num_hidden_layers, "first": length, "position": length, "token": vocab_size,
              "pins": vocab_size, "tokens": vocab_size}  # fmt: skip
    for name, limit in limits.items():
        given = getattr(body, name, None)
        if given is None:
            continue
        if name not in ("tokens", *read):
            raise ApiError(400, f"{name} is not read by this view.", param=name)
        for value in given if isinstance(given, list) else [given]:
            if value >= limit:
                raise ApiError(400, f"{name}: {value} must be below {limit}.", param=name)


def lens(run: Run, body: ReplayBody) -> tuple[dict[str, Any], Arrays]:
    """Of the positions from `first` on: (R,P,5) ids and p, (R,P) entropy in nats, (R,P,n) rank and p of the pins; row 0
    is the embedding, row l the stream after layer l."""
    tokens = np.array(body.tokens)
    first = max(0, len(tokens) - MAX_GRID // 4) if body.first is None else body.first
    if len(tokens) - first > MAX_GRID:
        raise limit_exceeded("tokens", f"{len(tokens) - first} positions from first on", "of the lens", MAX_GRID)
    pins = np.array(body.pins or [], np.int64)
    streams = (run.replay.embed(tokens), *(layer.stream for layer in run.layers(tokens)))
    rows = []
    for stream in streams:
        run.check()
        rows.append(lens_row(run.replay.logits(stream[first:]), pins))
    names = ("ids", "p", "entropy", "pin_rank", "pin_p")
    return {"first": first, "pins": pins.tolist()}, {name: np.stack([row[name] for row in rows]) for name in names}


def lens_row(logits: Array, pins: Array) -> Arrays:
    """The likeliest tokens of each position, of equals the lower id first.    logits: (P,V)"""
    count = min(LISTED, logits.shape[1])
    y = logits - logits.max(axis=1, keepdims=True)  # (P,V)
    p = np.exp(y)
    total = p.sum(axis=1, keepdims=True, dtype=np.float64)
    entropy = np.log(total[:, 0]) - (p * y).sum(axis=1, dtype=np.float64) / total[:, 0]
    ids = np.sort(np.argpartition(y, -count, axis=1)[:, -count:], axis=1)  # (P,5)
    order = np.argsort(-np.take_along_axis(y, ids, axis=1), axis=1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=1)
    ranks = [(y >= y[:, [pin]]).sum(axis=1) for pin in pins]  # 1: the likeliest
    return {
        "ids": ids.astype(np.int32),
        "p": (np.take_along_axis(p, ids, axis=1) / total).astype(np.float32),
        "entropy": entropy.astype(np.float32),
        "pin_rank": np.array(ranks, np.int32).reshape(len(pins), len(y)).T,
        "pin_p": (p[:, pins] / total).astype(np.float32),
    }


def attention(run: Run, body: ReplayBody) -> tuple[dict[str, Any], Arrays]:
    """(H,T,T) in float16 of one layer; (L,H,T,T) of all, 255 being 1."""
    tokens = np.array(body.tokens)
    if body.layer is None:
        if len(tokens) > MAX_GRID:
            raise limit_exceeded("tokens", len(tokens), "of all layers' attention: give a layer", MAX_GRID)
        weights = [np.rint(layer.weights * 255).astype(np.uint8) for layer in run.layers(tokens)]
        return {"layer": None, "scale": 255}, {"weights": np.stack(weights)}
    for layer in run.layers(tokens):
        if layer.index == body.layer:
            return {"layer": body.layer, "scale": 1}, {"weights": layer.weights.astype(np.float16)}
    raise AssertionError("the layer's number was checked")


def attribution(run: Run, body: ReplayBody) -> tuple[dict[str, Any], Arrays]:
    """(1+2L,) shares in float64, of the embedding, then of each layer's attention and MLP; their sum is the logit."""
    tokens = np.array(body.tokens)
    position = len(tokens) - 1 if body.position is None else body.position
    parts = [run.replay.embed(tokens)[position]]
    stream = parts[0]
    for layer in run.layers(tokens[: position + 1]):
        parts += [layer.attention[position], layer.mlp[position]]
        stream = layer.stream[position]
    logits = run.replay.logits(stream)
    token = int(logits.argmax()) if body.token is None else body.token
    shares = run.replay.contributions(np.array(parts), stream, token)
    names = ["embedding"]
    for index in range(len(parts) // 2):
        names += [f"attention {index}", f"mlp {index}"]
    head = {"position": position, "token": token, "logit": float(logits[token]), "names": names}
    return head, {"shares": shares}


# By name, and which fields each reads.
VIEWS = {
    "lens": (lens, ("first", "pins")),
    "attention": (attention, ("layer",)),
    "attribution": (attribution, ("position", "token")),
}


def packed(head: dict[str, Any], arrays: Arrays) -> bytes:
    """offsets count from the end of the head, which spaces fill up; all is aligned."""
    described, offset = [], 0
    for name, array in arrays.items():
        described.append({"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "offset": offset})
        offset += -(-array.nbytes // ALIGNED) * ALIGNED
    text = json.dumps({**head, "arrays": described}).encode()
    text += b" " * (-(len(text) + 4) % ALIGNED)
    body = [struct.pack("<I", len(text)), text]
    for array in arrays.values():
        content = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        body += [content, bytes(-len(content) % ALIGNED)]
    return b"".join(body)
