"""Preparation: prompts become requests in threads, while the event loop and the engine go on.

Encoding takes milliseconds as a rule. But a chat template may run for seconds, and a constraint may take as long to
compile: both have threads of their own, so that each holds up its like only, and quick requests neither.
Not here: what a request is (requests.py), who may wait (admission.py). Tests: tests/vol3/test_async_engine.py.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from nano_llama.core.errors import ContextLengthError
from nano_llama.core.sampling import SamplingParams
from nano_llama.core.units import plural
from nano_llama.vol3_engine.adapters import AdapterChoice
from nano_llama.vol3_engine.llm import LLM, is_conversation
from nano_llama.vol3_engine.requests import Request

T = TypeVar("T")
Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]  # text, ids, or the messages of a conversation


class Preparation:
    """For one LLM. What is cancelled before a thread is free for it is not begun."""

    def __init__(self, llm: LLM):
        self.llm = llm
        self.samples = 0  # of prompts that are being encoded
        self._constraints = ThreadPoolExecutor(2, "nano-llama-constraints")
        self._templates = ThreadPoolExecutor(2, "nano-llama-templates")

    async def request(
        self,
        prompt: Prompt,
        params: SamplingParams,
        number: int,
        adapter: AdapterChoice,
        cache_salt: str | None,
        template: Mapping[str, Any],
    ) -> Request:
        """See AsyncEngine.prepare."""
        make = partial(self.llm.request, prompt, params, number, adapter=adapter, cache_salt=cache_salt, **template)
        self.samples += params.n
        try:
            if params.structured_outputs is not None:
                request = await asyncio.get_running_loop().run_in_executor(self._constraints, make)
            elif is_conversation(prompt):
                request = await self.with_template(make)
            else:
                request = await asyncio.to_thread(make)
        finally:
            self.samples -= params.n
        context, length = self.llm.config.max_position_embeddings, len(request.prompt_ids)
        params = request.sequences[0].params  # where max_tokens was unset, the request knows what it means
        if params.max_tokens is not None and length + params.max_tokens > context:
            raise ContextLengthError(
                f"The prompt has {plural(length, 'token')} and max_tokens is {params.max_tokens}: together more than "
                f"the model's context of {context}.",
                hint=f"Shorten the prompt, or ask for at most {context - length} tokens.",
                prompt_tokens=length,
                max_tokens=params.max_tokens,
                context=context,
            )
        return request

    async def with_template(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._templates, work)

    def close(self) -> None:
        for executor in (self._constraints, self._templates):
            executor.shutdown(wait=False, cancel_futures=True)
