"""Ranks that fail, hang or are lost, as threads with a real store: which of them says what."""

import threading
import time

import pytest

pytest.importorskip("torch")

import torch.distributed as dist

from nano_llama.core.env import Launch
from nano_llama.core.errors import EnvironmentFault, SaidByAnother, UserError
from nano_llama.vol2_torch.parallel import heartbeat

SIZE = 3


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, seconds in (("BEAT", 0.05), ("SILENCE", 0.6), ("FAREWELL", 0.3)):
        monkeypatch.setattr(heartbeat, name, seconds)


def launch(rank, local_rank=None):
    """As torchruns say it of which each has restarted its processes another number of times."""
    local = rank if local_rank is None else local_rank
    return Launch(rank=rank, world_size=SIZE, local_rank=local, local_world_size=SIZE, address="", restarts=rank)


class Ranks:
    """SIZE threads, each with a store of its own that reaches the first one's."""

    def __init__(self):
        self.server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.stores = [dist.TCPStore("127.0.0.1", self.server.port, is_master=False) for _ in range(SIZE)]
        self.raised, self.attempt = {}, 0

    def run(self, *works):
        """works: what each rank does -> what each raised, by rank."""
        self.raised, self.attempt = {}, self.attempt + 1
        threads = [
            threading.Thread(target=self._one, args=(rank, work), daemon=True) for rank, work in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        return self.raised

    def _one(self, rank, work):
        try:
            with heartbeat.failing_together(self.stores[rank], launch(rank), attempt=str(self.attempt), timeout=7):
                work()
        except BaseException as error:
            self.raised[rank] = error


def raising(error, after=0.2):
    def work():
        time.sleep(after)
        raise error

    return work


def connection(after):
    return raising(RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer"), after)


def timed_out(after):
    return raising(RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 7000ms"), after)


def test_the_rank_that_fails_says_it_and_which_it_is():
    raised = Ranks().run(connection(0.4), raising(OSError(28, "No space left on device"), 0.2), connection(0.4))
    assert isinstance(raised[1], OSError) and raised[1].__notes__[0].startswith("This was rank 1 of 3, on ")
    assert [type(raised[rank]) for rank in (0, 2)] == [SaidByAnother] * 2


def test_ranks_that_were_started_again_know_nothing_of_the_failure_before():
    ranks = Ranks()
    for number in (0, 2):
        works = [connection(0.4)] * SIZE
        works[number] = raising(OSError(28, "No space left on device"), 0.2)
        raised = ranks.run(*works)
        assert [rank for rank, error in raised.items() if not isinstance(error, SaidByAnother)] == [number]


def test_all_end_with_the_exit_code_of_the_one_that_says_it():
    for error, code in ((UserError("its file is another"), 2), (OSError(28, "No space left on device"), 1)):
        raised = Ranks().run(connection(0.4), raising(error, 0.2), connection(0.4))
        assert [raised[rank].exit_code for rank in (0, 2)] == [code] * 2


def test_what_all_find_all_raise():
    wrong = [UserError(f"as rank {rank}") for rank in range(SIZE)]
    raised = Ranks().run(*map(raising, wrong))
    assert raised == dict(enumerate(wrong)) and not any(hasattr(error, "__notes__") for error in wrong)


def test_a_rank_whose_heart_has_stopped_is_named(monkeypatch):
    """Two others time out waiting for it; one of them names it, with its host."""
    monkeypatch.setattr(heartbeat.socket, "gethostname", lambda: "here")
    beat = heartbeat.Heartbeat._beat
    monkeypatch.setattr(heartbeat.Heartbeat, "_beat", lambda self: None if self.launch.rank == 1 else beat(self))
    raised = Ranks().run(timed_out(0.4), lambda: time.sleep(3), timed_out(0.5))
    said = [error for error in raised.values() if not isinstance(error, SaidByAnother)]
    assert len(raised) == 2 and len(said) == 1
    assert isinstance(said[0], EnvironmentFault)
    assert said[0].message.startswith("Rank 1 (on here) of 3 does not answer")
    assert said[0].__notes__ == ["Found by rank 0 of 3, on here."]


def test_all_live_but_one_was_too_slow():
    raised = Ranks().run(timed_out(0.3), lambda: time.sleep(2), timed_out(0.3))
    said = [error for error in raised.values() if not isinstance(error, SaidByAnother)]
    assert [error.message for error in said] == ["A rank waited 7 s for another one, though all 3 live."]
    assert "--mesh-timeout" in said[0].hint


@pytest.mark.parametrize(("rank", "local_rank", "says"), [(1, 1, True), (2, 2, False), (2, 0, True)])
def test_the_first_rank_takes_the_store_with_it(rank, local_rank, says):
    """One of each machine says that the first rank is gone, as they cannot ask each other."""

    class Gone(dist.Store):
        def clone(self):
            return self

    alone = heartbeat.Heartbeat(Gone(), launch(rank, local_rank), "1")
    assert alone.is_first_to_fail() == says
    assert "Rank 0" in alone.reason(RuntimeError("gloo: closed"), 7).message


def test_the_first_rank_leaves_when_all_know_the_reason_and_only_then_do_their_exchanges_fail():
    """As gloo's connections to it close only with its process, which takes the store with it."""
    ranks = Ranks()

    def wait_for_the_first():
        while 0 not in ranks.raised:
            time.sleep(0.01)
        ranks.server = None
        raise RuntimeError("gloo: Connection closed by peer")

    raised = ranks.run(raising(UserError("its file is another"), 0.2), wait_for_the_first, wait_for_the_first)
    assert isinstance(raised[0], UserError)
    assert [(type(raised[rank]), raised[rank].exit_code) for rank in (1, 2)] == [(SaidByAnother, 2)] * 2


def test_an_answer_that_does_not_come():
    assert heartbeat.within(0.1, lambda: time.sleep(5)) is None
    assert heartbeat.within(5, lambda: 1 / 0) is None
    assert heartbeat.within(5, lambda: 3) == 3
