"""Signals that ask a process to end: Ctrl-C, a scheduler's SIGTERM, the SIGHUP of a terminal that closes.

`Deferred` notes them while something must not be cut short, `Ending` turns them into an exception for a whole command.
A signal that the process ignores, as under nohup, stays ignored.
"""

import abc
import logging
import os
import signal
import sys
import threading
import time
from typing import Any, Self

_log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ONE_REQUEST = 0.5  # seconds: shells, wrappers and terminals may each send the signal of one and the same request
_AGAIN = 0.05  # seconds after which an exception that got lost is raised again


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end; `number` is the signal's."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Handling(abc.ABC):
    """Handles SIGNALS while entered, in the main thread, to which alone they belong; elsewhere it does nothing."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the signal that came first
        self._at = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _receive(self, number: int, _: Any) -> None:
        if self.number is None:
            self.number, self._at = number, time.monotonic()
            self._first(number)
        elif time.monotonic() - self._at > _ONE_REQUEST:
            self._second(number)

    @abc.abstractmethod
    def _first(self, number: int) -> None:
        """What the first signal does."""

    @abc.abstractmethod
    def _second(self, number: int) -> None:
        """What a later one does."""


class Deferred(_Handling):
    """Notes the first signal in `number`, and at the exit hands it to whoever handled it before.

    A second signal is handed on at once.
    """

    def __exit__(self, *_: object) -> None:
        held = self.number is not None and bool(self._previous)  # not handed on before
        super().__exit__()
        if held:
            signal.raise_signal(self.number)

    def _first(self, number: int) -> None:
        _log.warning("%s: stopping after this iteration; once more to stop at once", signal.Signals(number).name)

    def _second(self, number: int) -> None:
        super().__exit__()
        signal.raise_signal(number)


class Ending(_Handling):
    """The first signal raises Interrupted, and surely: also where Python prints an exception and goes on, as it does in
    callbacks of the garbage collector. A second one ends the process at once.
    """

    def __enter__(self) -> Self:
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        sys.unraisablehook = self._hook

    def _first(self, number: int) -> None:
        raise Interrupted(number)

    def _second(self, number: int) -> None:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    def _unraisable(self, lost: Any) -> None:
        if not isinstance(lost.exc_value, Interrupted):
            return self._hook(lost)
        self.number = None
        threading.Timer(_AGAIN, os.kill, (os.getpid(), lost.exc_value.number)).start()
        return None
