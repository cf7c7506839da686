"""The first Ctrl-C asks, the second stops."""

import os
import signal
import threading

import pytest

from nano_llama.training.interrupt import GracefulInterrupt


def test_first_asks_second_stops():
    before = signal.getsignal(signal.SIGINT)
    with GracefulInterrupt() as ctrl_c:
        assert not ctrl_c.pressed
        os.kill(os.getpid(), signal.SIGINT)
        assert ctrl_c.pressed
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_asks_too_and_never_does_more():
    before = signal.getsignal(signal.SIGTERM)
    with GracefulInterrupt() as ctrl_c:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            assert ctrl_c.pressed and ctrl_c.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_handler_is_given_back_when_nothing_is_pressed():
    before = signal.getsignal(signal.SIGINT)
    with GracefulInterrupt() as ctrl_c:
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before and not ctrl_c.pressed


def test_another_thread_installs_nothing():
    seen = []

    def work():
        with GracefulInterrupt() as ctrl_c:
            seen.append(ctrl_c.pressed)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
