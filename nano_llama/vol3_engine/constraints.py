"""Constraints: which tokens may come next so that a text follows a JSON schema, an expression, a grammar or a list.

SamplingParams(structured_outputs=...) asks for one (core/sampling/structured_outputs.py has the forms). llguidance, in
the extra `structured`, follows the text byte by byte and says before each token which of the vocabulary may come; the
sampler gives all others the logit -inf. Special tokens never come inside; a token that ends the text may come where the
text is complete; and where nothing may follow, the text ends by itself.

A schema or a grammar is not trusted. It may have MAX_BYTES; it is compiled in a process of its own first, in SECONDS,
MEMORY_BYTES and STACK_BYTES (constraint_worker.py); LIMITS bound what a token may cost, FOLLOW_SECONDS what all may.
What cannot be followed exactly is refused with llguidance's message: nothing is ever generated without its constraint.

Not here: when a sequence ends (sequence.py).
Tests: tests/vol3/test_constraints.py, tests/vol3/test_constraint_limits.py.
"""

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nano_llama.core.errors import UserError, import_extra
from nano_llama.core.limited_process import LimitedProcess, ProcessEnded
from nano_llama.tokenizer.incremental import WholeTextDecoder

if TYPE_CHECKING:
    from nano_llama.tokenizer import Tokenizer

MAX_BYTES = 2**18  # of a schema, an expression or a grammar
SECONDS = 2.0  # to compile it: most take milliseconds, a schema of 1,000 properties a tenth of a second
MEMORY_BYTES = 2**29
STACK_BYTES = 2**20  # of the trial; a thread of this process has 2 MiB at least, 8 MiB as a rule
LIMITS = {  # llguidance's own
    "step_max_items": 10_000,  # of the parser for one token, an ambiguous grammar's most of all: up to 0.4 s
    "step_lexer_fuel": 100_000,
    "max_lexer_states": 50_000,  # 1 to 2 kB each
    "verbose_errors": False,  # its errors would print the parser's state
}
# What following a constraint may take of the engine's thread: so many seconds, and so many more for every token. An
# honest one takes 0.01 to 0.2 ms a token.
FOLLOW_SECONDS = 0.25
FOLLOW_SECONDS_PER_TOKEN = 0.002


@dataclass
class Effort:
    """What following the constraint of a request has taken, its samples together. Used as `with effort:`."""

    seconds: float = 0.0  # of computing: what else the machine does must not fail a request
    tokens: int = 0
    began: float = 0.0

    def __enter__(self) -> None:
        self.began = time.thread_time()

    def __exit__(self, *exception: object) -> None:
        self.seconds += time.thread_time() - self.began

    @property
    def too_large(self) -> bool:
        return self.seconds > FOLLOW_SECONDS + self.tokens * FOLLOW_SECONDS_PER_TOKEN


class Constraint:
    """The text of one sequence so far, and what may follow it."""

    def __init__(self, matcher: Any, vocab_size: int, end_ids: Collection[int], effort: Effort):
        self._matcher, self._vocab_size, self._end_ids, self._effort = matcher, vocab_size, list(end_ids), effort

    def copy(self) -> "Constraint":
        """Another sample's of the same request, at the same place."""
        return Constraint(self._matcher.deep_copy(), self._vocab_size, self._end_ids, self._effort)

    def allowed(self, *, end: bool = True) -> np.ndarray:
        """Which tokens may come next: (V,) bool. end: whether the text may end where more may follow.

        Raises UserError if no token may come, or if the constraint takes too long to follow.
        """
        with self._effort:
            packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = np.unpackbits(packed, count=self._vocab_size, bitorder="little").view(bool)
        if not end:
            others = allowed.copy()
            others[self._end_ids] = False
            allowed = others if others.any() else allowed
        if not allowed.any():
            raise _dead_end()
        return allowed

    def accept(self, token: int) -> None:
        """The text grows by this token, which was allowed. Raises UserError if that takes too long."""
        with self._effort:
            self._matcher.consume_token(token)
        self._effort.tokens += 1
        self._check()

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing but its end may follow."""
        return self._matcher.is_stopped() and self._matcher.is_accepting()

    def _check(self) -> None:
        if self._matcher.is_error():
            message = _shortened(self._matcher.get_error())
            if message == "NoExtensionBias":  # nothing may follow, where something must
                raise _dead_end()
            raise UserError(
                f"structured_outputs cannot be followed any further: {message}",
                hint="It is too complex or ambiguous: make it simpler.",
            )
        if self._effort.too_large:
            raise UserError(
                f"structured_outputs took {self._effort.seconds:.2f} s of computing for {self._effort.tokens} tokens.",
                hint="It is too complex or ambiguous: make it simpler.",
            )


class ConstraintCompiler:
    """Compiles constraints for one model. Usable from several threads; the model's vocabulary is read on first use.

    vocab_size: the model's, which may be more than the tokenizer's. end_ids: the ids that end a text.
    """

    def __init__(self, tokenizer: "Tokenizer", vocab_size: int, end_ids: frozenset[int]):
        self.tokenizer, self.vocab_size, self.end_ids = tokenizer, vocab_size, end_ids
        self._lock = threading.Lock()
        self._process: LimitedProcess | None = None

    def compile(self, structured_outputs: Mapping[str, Any]) -> Constraint:
        """structured_outputs: as SamplingParams holds it. Raises UserError for what is wrong, too large, too slow or
        not supported, EnvironmentFault without llguidance."""
        llguidance = import_extra("llguidance", "structured", "structured_outputs")
        ((kind, given),) = structured_outputs.items()
        size = len("".join(given).encode(errors="replace"))
        if size > MAX_BYTES:
            raise UserError(
                f"structured_outputs: the {kind} has {size:,} bytes; at most {MAX_BYTES:,} are read.",
                hint="Make it smaller.",
            )
        with self._lock:
            grammar = self._try(kind, given)
            vocabulary = self._vocabulary
        limits = llguidance.LLParserLimits(**LIMITS)
        matcher = llguidance.LLMatcher(vocabulary, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise _refused(kind, matcher.get_error())
        constraint = Constraint(matcher, self.vocab_size, self.end_ids, Effort())
        constraint.allowed()  # a constraint that this model cannot even begin to follow is refused now
        return constraint

    def _try(self, kind: str, given: Any) -> str:
        """Compile it in a process of its own -> the grammar as llguidance reads it."""
        if self._process is None or not self._process.usable():
            script = Path(__file__).with_name("constraint_worker.py")
            setup = {"memory": MEMORY_BYTES, "seconds": SECONDS, "stack": STACK_BYTES, "limits": LIMITS}
            self._process = LimitedProcess(script, setup, "structured_outputs")
        try:
            reply = self._process.exchange({"kind": kind, "given": given}, SECONDS)
        except ProcessEnded as ended:
            took = (
                f"takes longer than {SECONDS:.0f} s"
                if ended.late
                else f"is nested too deeply, or takes more than {MEMORY_BYTES // 2**20} MiB,"
            )
            raise UserError(
                f"structured_outputs: the {kind} {took} to compile.", hint="Make it smaller or simpler."
            ) from None
        if "error" in reply:
            raise _refused(kind, reply["error"])
        return reply["grammar"]

    @cached_property
    def _vocabulary(self) -> Any:
        """llguidance's index of the model's tokens."""
        import llguidance

        words = Vocabulary(self.tokenizer, self.vocab_size, self.end_ids)
        wrapper = llguidance.TokenizerWrapper(words)
        return llguidance.LLTokenizer(wrapper, n_vocab=len(words.tokens), eos_token=words.end_ids)


class Vocabulary:
    """What llguidance asks of a tokenizer: each id's bytes, and how a text is encoded.

    Ids that have no bytes are special tokens here, which never come inside a text: the tokenizer's own, and the rows
    that the model has beyond it. A model without an end of text gets one, an id that is one too large to be sampled.
    Raises UserError for a tokenizer whose tokens are not bytes.
    """

    bos_token_id = None

    def __init__(self, tokenizer: "Tokenizer", vocab_size: int, end_ids: frozenset[int]):
        if isinstance(tokenizer.decoder(), WholeTextDecoder):
            raise UserError(
                f"structured_outputs needs tokens that stand for bytes; this {tokenizer.kind} tokenizer has others.",
                hint="Use a model with a byte-level, SentencePiece or character tokenizer.",
            )
        self._tokenizer = tokenizer
        known = range(min(vocab_size, tokenizer.vocab_size))
        without_text = {*tokenizer.special_ids, *end_ids, tokenizer.unk_id, tokenizer.pad_id}
        spelled = {i for i in known if i not in without_text and tokenizer.backend.id_to_token(i) is not None}
        self.end_ids = sorted(end_ids) or [vocab_size]
        size = max(vocab_size, self.end_ids[-1] + 1)
        self.tokens = [tokenizer.token_bytes(i) if i in spelled else b"<%d>" % i for i in range(size)]
        self.special_token_ids = [i for i in range(size) if i not in spelled]
        self.eos_token_id = self.end_ids[0]

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_bos=False)


def _refused(kind: str, message: str) -> UserError:
    return UserError(
        f"structured_outputs: the {kind} cannot be followed: {_shortened(message).rstrip('.')}.",
        hint="Correct it, or leave out what is not supported.",
    )


def _dead_end() -> UserError:
    return UserError(
        "structured_outputs: no token of this model's vocabulary continues the text as it asks.",
        hint="The model cannot write one of its characters: leave that out.",
    )


def _shortened(message: str) -> str:
    """llguidance's message, without what is of no use to a caller; a long one repeats the input, so its ends matter."""
    message = message.partition("<backtrace>")[0].replace("<non-verbose/>", "").strip()
    return message if len(message) <= 600 else f"{message[:300]} ... {message[-300:]}"
