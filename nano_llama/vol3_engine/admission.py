"""Admission: how many requests may wait before the engine, and how long one that is refused should stay away.

A queue without bound turns overload into answers that nobody waits for any more. Tests: tests/vol3/test_admission.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nano_llama.core.errors import EngineOverloaded, UserError
from nano_llama.vol3_engine.requests import Request
from nano_llama.vol3_engine.sequence import Status

DEFAULT_MAX_WAITING = 128
UNKNOWN_RETRY, LONGEST_RETRY = 2.0, 120.0  # seconds


@dataclass(frozen=True)
class Queue:
    """What is in the engine now."""

    waiting: int = 0  # sequences that have no blocks
    running: int = 0
    waiting_tokens: int = 0  # prompt tokens of the requests that have not started

    @classmethod
    def of(cls, requests: Iterable[Request], preparing: int = 0) -> "Queue":
        """Counted from the states of the sequences, which only the engine changes. preparing: so many more wait."""
        waiting, running, tokens = preparing, 0, 0
        for request in requests:
            states = [sequence.status for sequence in request.sequences]
            waiting += states.count(Status.WAITING)
            running += states.count(Status.RUNNING)
            if all(state is Status.WAITING for state in states):
                tokens += len(request.prompt_ids)
        return cls(waiting, running, tokens)


@dataclass(frozen=True)
class Admission:
    """Bounds on waiting sequences and waiting prompt tokens.

    max_running: how many sequences run at once; places that are free among them do not count as waiting. One request
    alone may always wait, however long its prompt is. Raises UserError for a bound that is not a whole number.
    """

    max_running: int
    max_waiting: int
    max_waiting_tokens: int

    def __post_init__(self) -> None:
        for name, value, least in (
            ("max_waiting", self.max_waiting, 0),
            ("max_waiting_tokens", self.max_waiting_tokens, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name}={value!r} must be a whole number of at least {least}.")

    def check(self, queue: Queue, ends_per_second: float, requests: Sequence[Request] = ()) -> None:
        """Raise EngineOverloaded if these requests, together, may not join the queue now; without any, if not even
        one sequence may. Raises UserError for more samples than may ever be there at once.

        ends_per_second: how fast sequences end; 0 where it is not known.
        """
        samples = max(1, sum(len(request.sequences) for request in requests))
        tokens = max(1, sum(len(request.prompt_ids) for request in requests))
        if samples > self.max_running + self.max_waiting:
            raise UserError(
                f"{samples} samples at once are more than the {self.max_running} that run and the {self.max_waiting} "
                "that may wait.",
                hint="Ask for fewer prompts or a smaller n.",
            )
        if queue.waiting + samples > self.max_waiting + max(0, self.max_running - queue.running):
            full = (
                f"{queue.running} sequences run and {queue.waiting} wait; with {samples} more there would be more than "
                f"the {self.max_running} that may run (max_num_seqs) and the {self.max_waiting} that may wait "
                "(max_waiting)"
            )
        elif queue.waiting_tokens and queue.waiting_tokens + tokens > self.max_waiting_tokens:
            full = (
                f"{queue.waiting_tokens} prompt tokens wait; with {tokens} more there would be more than the "
                f"{self.max_waiting_tokens} that may wait (max_waiting_tokens)"
            )
        else:
            return
        seconds = retry_after(queue.waiting, ends_per_second)
        raise EngineOverloaded(
            f"The engine is overloaded: {full}.", hint=f"Try again in about {seconds:.0f} s.", retry_after=seconds
        )


def retry_after(waiting: int, ends_per_second: float) -> float:
    """Seconds until those who wait now will have started, if sequences go on to end at this rate."""
    if ends_per_second <= 0:
        return UNKNOWN_RETRY
    return min(max(waiting / ends_per_second, 1.0), LONGEST_RETRY)
