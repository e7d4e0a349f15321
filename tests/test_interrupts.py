"""Signals end a process surely, at a safe place, once asked; and at once, asked twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trajclust_jax import interrupts
from trajclust_jax.interrupts import SIGNALS, Deferred, Ending, Interrupted

ROOT = Path(__file__).parents[1]
HEAD = "import os, signal, sys, time, gc; from trajclust_jax.interrupts import *\n"


def _python(code, name="SIGINT"):
    """Exit status and output of a process; negative where the signal itself ended it."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code.replace("SEND", f"os.kill(os.getpid(), signal.{name})")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_raises_and_handlers_come_back(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(Interrupted) as caught, Ending():
        signal.raise_signal(number)
    assert caught.value.number == number
    assert [signal.getsignal(each) for each in SIGNALS] == before


def _deferred(*numbers, then=lambda signals: None):
    with Ending(), Deferred() as signals:
        for number in numbers:
            signal.raise_signal(number)
        then(signals)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_deferred_signal_comes_at_the_end(number):
    done = []
    with pytest.raises(Interrupted):  # twice is the same request: a closing terminal and its shell both tell
        _deferred(number, number, then=lambda signals: done.append(signals.number))
    assert done == [number]


def test_a_deferred_signal_is_not_lost_with_an_error():
    with pytest.raises(Interrupted):
        _deferred(signal.SIGTERM, then=lambda _: 1 / 0)


def test_a_second_signal_is_not_deferred(monkeypatch):
    monkeypatch.setattr(interrupts, "_ONE_REQUEST", -1.0)
    with pytest.raises(Interrupted):
        _deferred(signal.SIGTERM, signal.SIGTERM, then=lambda _: pytest.fail("not reached"))


def test_a_second_signal_ends_a_process_that_does_not_end():
    code = "with Ending():\n  try: SEND; time.sleep(9)\n  finally: time.sleep(.6); SEND; time.sleep(9); print('no')"
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        assert _python(code, name) == (-getattr(signal, name), "")


@pytest.mark.parametrize("place", ["a callback of the garbage collector", "a finaliser"])
def test_an_exception_that_python_drops_is_raised_again(place):
    """As with jax, whose callback runs at every collection of garbage."""
    code = {
        "a callback of the garbage collector": "gc.callbacks.append(lambda phase, _: phase == 'start' and once())",
        "a finaliser": "class A:\n  __del__ = lambda self: once()\nA(); A()",
    }[place]
    code = f"""
left = [1]
def once():
    while left: left.pop(); SEND; time.sleep(1)
try:
    with Ending():
        {"exec(" + repr(code) + ")"}
        gc.collect()
        time.sleep(9)
except Interrupted as error: print(error)
"""
    assert _python(code, "SIGTERM") == (0, "SIGTERM\n")


def test_what_is_ignored_stays_ignored():
    """As nohup has it."""
    code = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nwith Ending(), Deferred(): SEND\nprint('on')"
    assert _python(code, "SIGHUP") == (0, "on\n")


def test_other_threads_handle_nothing():
    code = """
import threading
def work():
    with Ending(), Deferred(): pass
thread = threading.Thread(target=work); thread.start(); thread.join()
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
"""
    assert _python(code) == (0, "")
