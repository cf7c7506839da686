"""Volume 1 as an engine of the command line: its `generate`, with the engine's rules for prompts and stop strings.

Not here: the model and its cache (vol1_numpy), when a text ends (vol3_engine/sequence.py, which has no tensors).
Tests: tests/cli/test_generate.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.tokenizer import Tokenizer
from nano_llama.vol1_numpy import Llama
from nano_llama.vol1_numpy.generate import generate
from nano_llama.vol3_engine.outputs import TextPiece
from nano_llama.vol3_engine.requests import Requests


class NumpySpeaker:
    """A Volume 1 model and its tokenizer, streaming one text at a time."""

    def __init__(self, model: Llama, tokenizer: Tokenizer):
        self.model, self.tokenizer, self.config = model, tokenizer, model.config
        self._requests = Requests(tokenizer, self.config, cache_tokens=self.config.max_position_embeddings)

    @classmethod
    def load(cls, path: Path, device: str = "auto", dtype: str = "auto") -> "NumpySpeaker":
        """Raises UserError for a device or a number format that NumPy does not compute in."""
        if device not in ("auto", "cpu"):
            raise UserError(f"--device {device}: Volume 1 computes in NumPy, on the CPU.", hint="Leave --device out.")
        if dtype not in ("auto", "float32"):
            raise UserError(f"--dtype {dtype}: Volume 1 computes in float32 here.", hint="Leave --dtype out.")
        return cls(Llama.from_pretrained(path), Tokenizer.from_pretrained(path))

    def stream(self, prompt: Any, sampling_params: SamplingParams | None = None) -> Iterator[TextPiece]:
        """As LLM.stream: a text, ids or messages -> pieces of text, the last with the whole result."""
        params = sampling_params or SamplingParams()
        messages = not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], dict)
        request = (self._requests.from_messages if messages else self._requests.from_prompt)(0, prompt, params)
        sequence = request.sequences[0]
        # The sequence decides where the text ends, so nothing else may end it earlier.
        endless = params.replace(
            stop=None, stop_token_ids=None, ignore_eos=True, max_tokens=sequence.max_new_tokens, seed=sequence.seed
        )
        for token in generate(self.model, sequence.prompt_ids, endless):
            text = sequence.append(token)
            yield TextPiece(text, token, self._requests.output(request) if sequence.finished else None)
            if sequence.finished:
                return
