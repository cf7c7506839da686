"""Recordings: when they are made, and what where they cannot be; the order of what CUDA is told, without CUDA."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.vol2_torch.launcher import WARM_UPS, CudaLauncher, PlainLauncher, Recorded  # noqa: E402


class Noting(PlainLauncher):
    """fails: what recording raises."""

    def __init__(self, fails=None):
        super().__init__(torch.device("cpu"))
        self.fails, self.done = fails, []

    def warm_up(self, work):
        self.done.append("warm up")
        work()

    def record(self, work):
        self.done.append("record")
        if self.fails:
            raise self.fails
        return lambda: self.done.append("replay")


def test_warm_ups_then_a_recording():
    launcher, ran = Noting(), []
    work = Recorded(lambda: ran.append(1), launcher, pytest.fail)
    for _ in range(WARM_UPS + 2):
        work()
    assert launcher.done == ["warm up"] * WARM_UPS + ["record", "replay", "replay"] and len(ran) == WARM_UPS
    assert not work.failed


def test_what_cannot_be_recorded_runs_on_and_is_said_once():
    notices, ran = [], []
    launcher = Noting(RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ..."))
    work = Recorded(lambda: ran.append(1), launcher, notices.append)
    for _ in range(WARM_UPS + 3):
        work()
    assert len(ran) == WARM_UPS + 3 and launcher.done.count("record") == 1 and work.failed
    (notice,) = notices
    assert "operation not permitted" in notice and "Compile with" not in notice


def test_the_first_error_is_told():
    class Leaving(Noting):
        def record(self, work):
            try:
                raise RuntimeError("what was not permitted")
            finally:
                raise RuntimeError("operation failed due to a previous error during capture")

    notices = []
    work = Recorded(lambda: None, Leaving(), notices.append)
    for _ in range(WARM_UPS + 1):
        work()
    assert "(what was not permitted)" in notices[0]


def test_other_errors_are_not_swallowed():
    work = Recorded(lambda: None, Noting(KeyboardInterrupt()), pytest.fail)
    for _ in range(WARM_UPS):
        work()
    with pytest.raises(KeyboardInterrupt):
        work()


def test_the_plain_twin_keeps_what_was_sent():
    launcher = PlainLauncher(torch.device("cpu"))
    figures = torch.tensor([1.0, 2.0])
    launcher.send(figures)
    figures.zero_()
    assert launcher.fetch() == [1.0, 2.0]
    (tensor,) = launcher.put([np.arange(6).reshape(2, 3)])
    assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.fixture
def cuda(monkeypatch):
    """torch.cuda as far as the launcher knows it -> what it was told, in order: (what, on which stream, ...)."""
    told, current = [], ["main"]

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            told.append((self.name, "waits for", other.name))

    names = iter(["computing", "copying"])

    @contextmanager
    def on(stream):
        before, current[0] = current[0], stream.name
        yield
        current[0] = before

    @contextmanager
    def capture(graph, *, pool, stream, capture_error_mode):
        assert pool == "pool" and capture_error_mode == "thread_local"
        told.append(("capture on", stream.name))
        yield
        told.append(("captured",))

    fake = SimpleNamespace(
        Stream=lambda place: Stream(next(names)), stream=on, current_stream=lambda place: Stream(current[0]),
        graph_pool_handle=lambda: "pool", graph=capture,
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: told.append(("replay", current[0]))),
        Event=lambda: SimpleNamespace(
            record=lambda: told.append(("event", current[0])), synchronize=lambda: told.append(("host waits",))
        ),
    )  # fmt: skip
    monkeypatch.setattr(torch, "cuda", fake)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: told.append(("pin",)) or self)
    to = torch.Tensor.to

    def copied(self, place, *, non_blocking):
        assert non_blocking
        told.append(("copy", current[0]))
        return to(self, place, copy=True)

    monkeypatch.setattr(torch.Tensor, "to", copied)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: told.append(("kept for", stream.name)))
    return told


def test_copies_go_beside_the_computation(cuda):
    CudaLauncher(torch.device("cpu")).put([np.zeros(2), np.ones(2)])
    copying = [("pin",), ("copy", "copying")] * 2
    assert cuda == [*copying, ("main", "waits for", "copying"), ("kept for", "main"), ("kept for", "main")]


def test_work_is_warmed_up_and_captured_on_one_stream_and_launched_on_the_callers(cuda):
    launcher = CudaLauncher(torch.device("cpu"))
    work = Recorded(lambda: cuda.append(("work",)), launcher, pytest.fail)
    work()
    assert cuda == [("computing", "waits for", "main"), ("work",), ("main", "waits for", "computing")]
    for _ in range(WARM_UPS):
        work()
    assert cuda[-4:] == [("capture on", "computing"), ("work",), ("captured",), ("replay", "main")]


def test_figures_are_read_once_their_copy_has_arrived(cuda, monkeypatch):
    empty = torch.empty

    def pinned(*shape, pin_memory=False, **options):
        assert pin_memory
        return empty(*shape, **options)

    launcher = CudaLauncher(torch.device("cpu"))
    monkeypatch.setattr(torch, "empty", pinned)
    launcher.send(torch.tensor([3.0, 4.0]))
    assert cuda == [("event", "main")]
    assert launcher.fetch() == [3.0, 4.0] and cuda[-1] == ("host waits",)
    place = launcher.figures.data_ptr()
    launcher.send(torch.tensor([5.0, 6.0]))
    assert launcher.fetch() == [5.0, 6.0] and launcher.figures.data_ptr() == place
