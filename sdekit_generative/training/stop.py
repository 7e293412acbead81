"""Being asked to stop: SIGINT and SIGTERM become a flag that the training loop reads between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .processes import Processes

EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 0}


class Stop:
    """Whether, and by which signal, the process was asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def agreed(self, processes: Processes) -> bool:
        """Whether any of the processes was asked to stop; all learn of it at the same step."""
        return processes.add_up(float(bool(self))) > 0

    @property
    def exit_status(self) -> int:
        """130 after SIGINT, 0 after SIGTERM (what a scheduler sends, and no failure), 0 where nothing was asked."""
        return 0 if self.signal is None else EXIT_STATUS[self.signal]


@contextmanager
def listening() -> Iterator[Stop]:
    """Catches both signals while the block runs; afterwards they do again what they did before."""
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        stop.signal = signal.Signals(number)

    if threading.current_thread() is not threading.main_thread():  # where handlers cannot be set, nothing is caught
        yield stop
        return
    before = {number: signal.signal(number, note) for number in EXIT_STATUS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
