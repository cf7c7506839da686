"""POST /inspect/next: the distribution of the token after given ids, from the engine that serves, and why which token
comes: what each step of sampling leaves, and where the random number of that place falls.

The engine computes one row, as for any request; a row does not depend on what it is computed with, so it is the very
row that an answer at that place was drawn from. The draw is the reference's (core/sampling).
Tests: tests/server/page/test_inspect_next.py.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from nano_llama.core.sampling import SamplingParams
from nano_llama.core.sampling.cuts import Cuts, cuts
from nano_llama.core.sampling.philox import uniform
from nano_llama.server.completions import listed_prompts
from nano_llama.server.errors import ApiError, json_response
from nano_llama.server.inspection.limits import TOP
from nano_llama.server.inspection.schemas import NextBody
from nano_llama.server.inspection.tokens import encode_text, text_of
from nano_llama.server.models import served_model
from nano_llama.server.parameters import completion_params, engine_errors
from nano_llama.server.streaming import collect, unless_left
from nano_llama.server.usage import service_of
from nano_llama.server.validation import read_as

if TYPE_CHECKING:
    from nano_llama.server.service import Service
    from nano_llama.vol3_engine.llm import LLM
    from nano_llama.vol3_engine.requests import Request
    from nano_llama.vol3_engine.sequence import Sequence as Sample

LEFT = 64  # of what the cuts leave, where that is not among the TOP


async def next_token(http: HttpRequest) -> Response:
    service = service_of(http)
    service.engine.require_room()
    body = await read_as(http, NextBody)
    adapter = service.adapter_of(served_model(service, body.model))
    asked = body.model_copy(update={"max_tokens": max(body.min_tokens or 0, 1)})
    params = completion_params(asked, service)
    prompts = listed_prompts(body.prompt, service)
    if len(prompts) != 1:
        raise ApiError(400, f"prompt: {len(prompts)} prompts. Give one.", param="prompt")
    prompt, output = prompts[0], body.output or []
    if isinstance(prompt, str):
        prompt = await unless_left(http, asyncio.to_thread(encode_text, prompt, service))
    one = params.replace(temperature=0.0, max_tokens=1, min_tokens=0)
    with engine_errors(body):
        salt = service.cache_salt(http)
        preparing = service.engine.prepare([*prompt, *output], one, adapter=adapter, cache_salt=salt)
        request = await unless_left(http, preparing)
    place = Place(prompt, output, params, request.sequences[0], service.llm)
    place.row = await served_row(http, service, request)
    return await asyncio.to_thread(lambda: json_response(place.describe()))


async def served_row(http: HttpRequest, service: "Service", request: "Request") -> np.ndarray:
    """The engine's logits after a request's prompt.    (V,)"""
    rows: list[np.ndarray] = []
    request.sequences[0].on_logits = lambda row: rows.append(row.copy())
    await collect(http, service.engine.submit([request]))
    return rows[0]


class Place:
    """One place in a text: applies `params` to the engine's row for it, which `sequence` asks for."""

    def __init__(
        self, prompt: Sequence[int], output: Sequence[int], params: SamplingParams, sequence: "Sample", llm: "LLM"
    ):
        self.prompt, self.output, self.params = prompt, output, params
        self.tokenizer, self.never = llm.tokenizer, llm.engine.sampler.allowed
        self.end_ids = sequence.stop_ids
        # Of the sequence all ids are the prompt. The constraint is about the output only: it is applied here.
        self.constraint, sequence.constraint = sequence.constraint, None
        self.row = np.empty(0, np.float32)  # (V,), once the engine has computed it

    def allowed(self) -> np.ndarray | None:
        """What the engine lets come here.    (V,) bool, or None: anything"""
        if self.constraint is None:
            return self.never
        for token in self.output:
            self.constraint.accept(token)
        mask = self.constraint.allowed(end=not self.params.ignore_eos)
        return mask if self.never is None else mask & self.never

    def describe(self) -> dict[str, Any]:
        """The answer."""
        found = cuts(
            self.row, self.params, self.prompt, self.output, end_ids=self.end_ids, allowed=self.allowed()
        )  # fmt: skip
        p = found.steps[0].probabilities
        return {
            "prompt": self.prompt,
            "position": len(self.prompt) + len(self.output),
            "vocab_size": len(self.row),
            "logsumexp": logsumexp(self.row),
            "adjusted_logsumexp": logsumexp(found.adjusted),
            "entropy": -float((p * np.log(np.maximum(p, np.finfo(float).tiny))).sum()),
            "top": self.top(found),
            "cuts": [{"name": step.name, "left": len(step.ids), "mass": step.mass} for step in found.steps[1:]],
            "draw": self.draw(found),
        }

    def top(self, found: Cuts) -> dict[str, list[Any]]:
        """Parallel lists: the TOP likeliest of the model, and the LEFT likeliest of what is left, by logit."""
        row, left = self.row, found.left
        ids = np.union1d(largest(row, TOP), left.ids[largest(left.probabilities, LEFT)])
        ids = ids[np.argsort(-row[ids], kind="stable")]
        p, start = np.zeros(len(row)), np.full(len(row), np.nan)  # (V,), (V,)
        p[left.ids], start[left.ids] = left.probabilities, found.pieces()[0]
        return {
            "ids": ids.tolist(),
            "texts": [self.text(token) for token in ids.tolist()],
            "logits": row[ids].astype(float).tolist(),
            "adjusted": [float(x) if np.isfinite(x) else None for x in found.adjusted[ids]],
            "cut_by": cut_by(ids, found),
            "p": p[ids].tolist(),
            "from": [None if np.isnan(x) else x for x in start[ids].tolist()],
        }

    def draw(self, found: Cuts) -> dict[str, Any] | None:
        """None: without a seed nobody can say. A greedy choice needs none."""
        greedy = self.params.is_greedy
        if self.params.seed is None and not greedy:
            return None
        u = 0.0 if greedy else uniform(self.params.seed or 0, len(self.prompt) + len(self.output))
        drawn = found.draw(u)
        return {
            "u": None if greedy else u,
            "token": drawn.token,
            "text": self.text(drawn.token),
            "p": drawn.probability,
            "from": drawn.start,
            "to": drawn.end,
        }

    def text(self, token: int) -> str | None:
        return text_of(self.tokenizer, token)


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` largest, in their order, of equals the first; sorts few.    (count,)"""
    least = np.partition(values, -count)[-count] if count < len(values) else -np.inf
    places = np.flatnonzero(values >= least)
    return places[np.argsort(-values[places], kind="stable")][:count]


def logsumexp(x: np.ndarray) -> float:
    """log of the sum of exp(x), in float64.    (V,)"""
    y = np.asarray(x, np.float64)
    largest = y.max()
    return float(largest + np.log(np.exp(y - largest).sum()))


def cut_by(ids: np.ndarray, found: Cuts) -> list[str | None]:
    """The step after which each id is not left any more; None: it is left to the end.    (C,)"""
    names: list[str | None] = [None] * len(ids)
    for step in found.steps[1:]:
        name = "min_tokens" if step.name == "penalties" else step.name  # a penalty moves, min_tokens excludes
        for place in np.flatnonzero(~np.isin(ids, step.ids)):
            names[place] = names[place] or name
    return names
