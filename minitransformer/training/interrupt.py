"""Ctrl-C between two steps instead of within one."""

from __future__ import annotations

import contextlib
import signal
import threading

__all__ = ["asked_to_stop"]


@contextlib.contextmanager
def asked_to_stop(wanted):
    """A list that a first Ctrl-C fills: half a step cannot be saved, a whole one can. A second Ctrl-C stops at once.

    Outside the main thread, where Python lets nobody catch signals, and unless `wanted`, Ctrl-C is left as it is.
    """
    asked: list[int] = []
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number, frame):
        if asked:
            raise KeyboardInterrupt("stopped at once; the checkpoints written before are whole")
        asked.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
