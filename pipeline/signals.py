"""Signals: the first one ends the command in order, a second one at once.

SIGINT is Ctrl-C, SIGTERM `kill` and `scancel`, SIGUSR1 the end of a walltime, SIGHUP that of a
terminal. The first raises `Interrupted` in the main thread: what is finished is committed, the
workers are closed, the lease is given back.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

ONE_S = 2.0
"Signals within this time are one: a scheduler tells a script and its command, which tells again."


class Interrupted(BaseException):
    """A signal asked the command to end; no Exception, so that nobody answers it on the way."""


class _Abroad(Interrupted, KeyboardInterrupt):
    """The same, for Ray, which lets no other exception out of its own loops."""


@dataclass
class _Ear:
    """What this process has heard."""

    at: float | None = None
    "Monotonic time of the first signal that was ours to answer."
    holding: int = 0
    "How many `later` are open."
    waiting: str = ""
    "A signal that waits for the last of them."
    before: dict[signal.Signals, Any] = field(default_factory=dict)
    "What answered each signal before us; empty where nobody listens."


_ear = _Ear()


@contextmanager
def interruptible() -> Iterator[None]:
    """Everything inside is ended by a signal with `Interrupted`, whoever takes the signal.

    Ray answers SIGTERM, and SIGINT while it trains, in its own way and with its own exit status.
    A socket that the interpreter itself writes to tells that a signal came all the same.
    """
    global _ear
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, _ear = _ear, _Ear(before={number: signal.getsignal(number) for number in SIGNALS})
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    former = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    rearm()
    try:
        yield
    except BaseException as error:
        _explain(error, _heard(reader))
        raise
    finally:
        for number, answer in _ear.before.items():
            signal.signal(number, answer)
        signal.set_wakeup_fd(former)
        reader.close()
        writer.close()
        _ear = outer


def rearm() -> None:
    """Listen again, where a library has put itself in our place."""
    for number, before in _ear.before.items():
        # What `nohup` and a shell's background have silenced stays silent.
        if before is not signal.SIG_IGN:
            signal.signal(number, _answer)


@contextmanager
def later() -> Iterator[None]:
    """A signal waits until this is through: a commit is whole, or not begun."""
    if not _ear.before or threading.current_thread() is not threading.main_thread():
        yield
        return
    rearm()
    _ear.holding += 1
    try:
        yield
    finally:
        _ear.holding -= 1
    if not _ear.holding and _ear.waiting:
        name, _ear.waiting = _ear.waiting, ""
        raise Interrupted(name)


def _answer(number: int, frame: FrameType | None) -> None:
    name, now = signal.Signals(number).name, time.monotonic()
    if _ear.at is None:
        _ear.at = now
        if not _ear.holding:
            raise (_Abroad if "ray" in sys.modules else Interrupted)(name)
        _ear.waiting = name
    elif now - _ear.at > ONE_S:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _heard(reader: socket.socket) -> str:
    """The name of the first of our signals that came, whoever answered it."""
    numbers = b""
    with suppress(BlockingIOError):
        numbers = reader.recv(4096)
    return next((signal.Signals(n).name for n in numbers if n in SIGNALS), "")


def _explain(error: BaseException, name: str) -> None:
    """Raise Interrupted where a signal is behind what ended the command."""
    if not name or isinstance(error, Interrupted):
        return
    # One that came when all was done leaves the exit status as it is.
    if isinstance(error, SystemExit) and _ear.at is not None and not _is_broken_off(error):
        return
    if isinstance(error, Exception):
        logger.warning("while it ended: %s", error)
    raise Interrupted(name) from error


def _is_broken_off(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, (Interrupted, KeyboardInterrupt)):
            return True
        error = error.__cause__ or error.__context__
    return False
