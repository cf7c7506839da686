"""When a rank fails, hangs or is lost: the others find out which one it was, and a single rank says it.

    with failing_together(store, launch, attempt="1", timeout=600.0): ...     # the work of all ranks

Each rank writes a number that grows once a second, its heartbeat, into the store by which the ranks have found each
other. One that fails counts itself in that store, and the first to do so says why. A rank whose exchange of data fails
knows only that another one is gone, or did not come within the time-out: those whose heartbeat has stopped are named.
Tests: tests/parallel/test_heartbeat.py.
"""

import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import torch.distributed as dist

from nano_llama.core.env import Launch
from nano_llama.core.errors import EnvironmentFault, NanoLlamaError, SaidByAnother

BEAT = 1.0  # seconds between two heartbeats
SILENCE = 4.0  # seconds without one after which a rank is taken for dead, and that the store has for an answer
FAREWELL = 1.0  # seconds that ranks leave the one that has said why, to end before them

Answer = TypeVar("Answer")


class Heartbeat:
    """Of this rank, and what it knows of the others'."""

    def __init__(self, store: dist.Store, launch: Launch, attempt: str):
        # A connection of its own, on which no other thread waits.
        self.store = dist.PrefixStore(f"heartbeat/{attempt}", store.clone())  # type: ignore[attr-defined]
        self.launch, self.host = launch, socket.gethostname()
        self.hosts = {launch.rank: self.host}
        self.over, self.terminated = threading.Event(), threading.Event()
        self.reachable = True  # the store
        self.heard: int | None = None  # the exit code of a rank that has said the reason

    def start(self) -> None:
        """Returns once the first rank has begun too."""
        self.store.set(f"host/{self.launch.rank}", self.host)
        self.store.set(f"beat/{self.launch.rank}", "0")
        self.hosts[0] = self.store.get("host/0").decode()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self) -> None:
        beats = 0
        with suppress(Exception):  # the store is gone, and with it the first rank
            while not self.over.wait(BEAT):
                self.store.set(f"beat/{self.launch.rank}", str(beats := beats + 1))
                if self.heard is None and self.store.check(["said"]):
                    self.heard = int(self.store.get("said"))
                    self.store.set(f"knows/{self.launch.rank}", "")

    def is_first_to_fail(self) -> bool:
        """Count this rank among those that have failed -> whether it is the one to say it.

        Where the store does not answer, the first rank's process is what is missing; one rank of each machine says it,
        unless it has heard a reason before.
        """
        count = within(SILENCE, self._count_as_failed)
        self.reachable = count is not None
        if self.reachable:
            return count == 1
        return self.heard is None and (self.launch.local_rank == 0 or self.launch.rank == 1)

    def _count_as_failed(self) -> int:
        self.store.set(f"failed/{self.launch.rank}", self.host)
        self.store.set(f"knows/{self.launch.rank}", "")
        return self.store.add("failed", 1)

    def stay_for_the_others(self) -> None:
        """The first rank, whose process has the store, stays until the failure has been said, and all know of it.

        Those that wait for this rank learn of it from the store, between two heartbeats: gloo's connections may close
        only when this process ends, and its store with it. One that hangs never does: some seconds are enough.
        """
        if dist.is_initialized():
            dist.destroy_process_group()
        self._until(lambda: self.store.check(["said"]), 3 * SILENCE)
        everyone = [f"knows/{rank}" for rank in range(self.launch.world_size)]
        self._until(lambda: self.store.check(everyone), SILENCE)

    def say(self, reason: BaseException) -> None:
        """Tell the other ranks that this one says it."""
        within(SILENCE, lambda: self.store.set("said", str(exit_code(reason))))

    def let_it_be_said(self) -> int:
        """Return when another rank has said it, and has had time to end before this one: torchrun reports the first.

        -> its exit code.
        """
        self._until(lambda: self.store.check(["said"]), 3 * SILENCE)
        code = within(SILENCE, lambda: int(self.store.get("said")) if self.store.check(["said"]) else None)
        code = self.heard if code is None else code
        if not self.let_sigterm_through():
            time.sleep(FAREWELL)
        return EnvironmentFault.exit_code if code is None else code

    def hold_sigterm(self) -> None:
        """torchrun sends it to all as soon as one has ended, when this one may have to say why, or keep the store."""
        with suppress(ValueError):  # another thread than the main one
            signal.signal(signal.SIGTERM, lambda number, frame: self.terminated.set())

    def let_sigterm_through(self) -> bool:
        """It ends this process from now on -> whether it has come meanwhile."""
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return self.terminated.is_set()

    def _until(self, happened: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while within(SILENCE, happened) is False and time.monotonic() < deadline:  # None: the store is gone
            time.sleep(0.05)

    def silent(self) -> list[int]:
        """The ranks whose heartbeat has stopped, but for those that are known to have failed. Takes SILENCE."""
        before = within(SILENCE, self._beats) if self.reachable else None
        if before is None:
            return [0]  # whose process has the store
        time.sleep(SILENCE)
        after = within(SILENCE, self._beats)
        if after is None:
            return [0]
        self.hosts |= within(SILENCE, self._hosts) or {}
        return [rank for rank, beat in before.items() if beat == after.get(rank)]

    def _beats(self) -> dict[int, bytes]:
        ranks = [rank for rank in range(self.launch.world_size) if not self.store.check([f"failed/{rank}"])]
        return {rank: self.store.get(f"beat/{rank}") for rank in ranks}

    def _hosts(self) -> dict[int, str]:
        return {rank: self.store.get(f"host/{rank}").decode() for rank in range(self.launch.world_size)}

    def reason(self, error: BaseException, timeout: float) -> BaseException:
        """What to say of an error, with this rank's number unless all have it."""
        if is_alike(error):
            return error
        here = f"rank {self.launch.rank} of {self.launch.world_size}, on {self.host}."
        if not exchange_failed(error):
            error.add_note(f"This was {here}")
            return error
        lost = self._lost(str(error).strip().splitlines()[0][:200], timeout)
        lost.add_note(f"Found by {here}")
        lost.__cause__ = error
        return lost

    def _lost(self, reason: str, timeout: float) -> EnvironmentFault:
        """What to say where the exchange of data has failed for this reason."""
        silent, size = self.silent(), self.launch.world_size
        if silent:
            names = ", ".join(f"{rank} (on {self.hosts.get(rank, '?')})" for rank in silent)
            one = len(silent) == 1
            return EnvironmentFault(
                f"Rank{'' if one else 's'} {names} of {size} do{'es' if one else ''} not answer: killed, hung, or not "
                "reached over the network.",
                hint="Look at that machine and at what was printed there; then go on with --resume.",
            )
        if "timed out" in reason.lower() or "timeout" in reason.lower():
            return EnvironmentFault(
                f"A rank waited {timeout:g} s for another one, though all {size} live.",
                hint="Go on with --resume; where a step may take so long, with a larger --mesh-timeout.",
            )
        return EnvironmentFault(f"Ranks have lost their connection: {reason}", hint="Go on with --resume.")


def within(seconds: float, question: Callable[[], Answer]) -> Answer | None:
    """The answer; None: it failed, or did not come in time (the store of a process that hangs never answers)."""
    answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(question())
        except Exception:
            answers.put(None)

    threading.Thread(target=ask, daemon=True).start()
    with suppress(queue.Empty):
        return answers.get(timeout=seconds)
    return None


def exchange_failed(error: BaseException) -> bool:
    """Whether it comes from the exchange of data, not from what this rank did. gloo's are plain RuntimeErrors."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def exit_code(error: BaseException) -> int:
    return getattr(error, "exit_code", EnvironmentFault.exit_code)


def is_alike(error: BaseException) -> bool:
    """Whether all ranks have this error: the user, the settings or the data are to blame."""
    return isinstance(error, NanoLlamaError) and not isinstance(error, EnvironmentFault)


@contextmanager
def failing_together(store: dist.Store, launch: Launch, *, attempt: str, timeout: float) -> Iterator[None]:
    """Around the work of all ranks. Of what ends them one rank raises the reason, all others SaidByAnother.

    What the settings, the data or the user are to blame for, all ranks raise alike. store: by which they found each
    other; it may hold the keys of those that were started before. attempt: a name that only these ranks have.
    timeout: seconds that they wait for each other in one operation.
    """
    heartbeat = Heartbeat(store, launch, attempt)
    heartbeat.start()
    try:
        yield
    except BaseException as error:
        heartbeat.hold_sigterm()
        first = heartbeat.is_first_to_fail()
        reason = heartbeat.reason(error, timeout) if first else error
        if first:
            heartbeat.say(reason)
        if launch.rank == 0:
            heartbeat.stay_for_the_others()
        if is_alike(error):  # the first of each machine says it, as cli/exits.py has it
            if launch.local_rank > 0 and heartbeat.let_sigterm_through():
                raise SaidByAnother(error, exit_code(error)) from error
            raise
        if first:
            raise reason from reason.__cause__
        raise SaidByAnother(error, heartbeat.let_it_be_said()) from error
    finally:
        heartbeat.over.set()
