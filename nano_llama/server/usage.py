"""What all answers have: who gave it, and what it cost in tokens.

Tests: tests/server/test_api_completions.py.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest

from nano_llama.core.version import VERSION
from nano_llama.server.schemas import StreamOptions

if TYPE_CHECKING:
    from nano_llama.server.service import Service
    from nano_llama.vol3_engine.outputs import TextPiece
    from nano_llama.vol3_engine.requests import Request

Pieces = Iterable[tuple["Request", "TextPiece"]]


@dataclass(frozen=True)
class Head:
    """The first fields of an answer, and of every chunk of it."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def of(cls, service: "Service", object: str, id: str, model: str) -> "Head":
        return cls(id, object, int(time.time()), model, fingerprint(service))

    def fields(self, object: str | None = None) -> dict[str, Any]:
        return {**vars(self), "object": object or self.object}


def fingerprint(service: "Service") -> str:
    """Changes with what may change a seed's tokens: the version, the model's shape, the engine's settings."""
    what = f"{VERSION} {service.model_ids} {service.llm!r} {service.llm.settings}"
    return f"fp_{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def service_of(http: HttpRequest) -> "Service":
    return http.app.state.service


class Usage:
    """Counts the tokens of a submission's requests. truncated: prompt tokens that were cut off; None: none could be."""

    def __init__(self, requests: Sequence["Request"], options: StreamOptions | None, truncated: int | None):
        self.prompt_tokens = sum(len(request.prompt_ids) for request in requests)
        self.completion_tokens = 0
        self.cached_tokens = 0
        self.truncated = truncated
        self.at_the_end = bool(options and options.include_usage)
        self.continuous = bool(options and options.continuous_usage_stats)

    def count(self, piece: "TextPiece", *, dropped: bool = False) -> None:
        """dropped: the answer leaves its token out."""
        self.completion_tokens += not dropped
        if piece.output is not None:
            self.cached_tokens += piece.output.num_cached_tokens

    def fields(self) -> dict[str, Any]:
        details = {"cached_tokens": self.cached_tokens}
        if self.truncated is not None:
            details["truncated_tokens"] = self.truncated
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": details,
        }

    def of_chunk(self) -> dict[str, Any]:
        """A chunk's "usage": so far, null where it comes at the end, or no such field."""
        if self.continuous:
            return {"usage": self.fields()}
        return {"usage": None} if self.at_the_end else {}


def by_sample(pieces: Pieces) -> Iterator[tuple["Request", int, list["TextPiece"]]]:
    """(request, index of the sample, its pieces), in the order of first appearance."""
    samples: dict[tuple[int, int], tuple[Request, int, list[TextPiece]]] = {}
    for request, piece in pieces:
        samples.setdefault((id(request), piece.index), (request, piece.index, []))[2].append(piece)
    yield from samples.values()
