"""How work that takes long is shown: a bar on a terminal, a plain line now and then in a log. All goes to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_EVERY = 10.0  # seconds between lines where there is no terminal


class _Lines:
    """What a bar says, as lines."""

    def __init__(self, title: str) -> None:
        self._title, self._start, self._next = title, time.monotonic(), time.monotonic() + _EVERY
        self._ended = False

    def say(self, text: str, now: bool = False) -> None:
        """Say it if it is time, or now; what is said now is the last."""
        if not self._ended and (now or time.monotonic() >= self._next):
            self._next, self._ended = time.monotonic() + _EVERY, now
            print(f"{self._title}: {text}", file=sys.stderr, flush=True)  # noqa: T201

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start


@contextmanager
def training_bar(total: int, done: int) -> Iterator[Callable[[int, float], None]]:
    """Shows steps, loss and rate; yields what is to be called with (steps done, loss)."""
    lines, mean = _Lines("training"), _Mean()
    with tqdm(total=total, initial=done, desc="training", unit="step", disable=None, dynamic_ncols=True) as bar:

        def report(step: int, loss: float) -> None:
            smooth = mean.add(loss)
            if bar.disable:
                rate = (step - done) / max(lines.seconds, 1e-9)
                left = (total - step) / max(rate, 1e-9)
                lines.say(
                    f"step {step}/{total}  loss {smooth:.4f}  {rate:.2f} steps/s  {left:.0f} s left", now=step >= total
                )
            else:
                bar.set_postfix_str(f"loss {smooth:.4f}", refresh=False)
                bar.update(step - bar.n)

        yield report


@contextmanager
def work_bar(title: str, count: int | None = None, unit: str = "image") -> Iterator[Callable[[float], None]]:
    """Shows a share of work done, the time that is left, and the rate where the work is of a count of something.

    Yields what is to be called with a fraction in [0, 1].
    """
    lines, total = _Lines(title), float(count or 1)
    layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}" + (", {rate_fmt}" if count else "")
    with tqdm(total=total, desc=title, unit=unit, disable=None, dynamic_ncols=True, bar_format=layout) as bar:

        def report(fraction: float) -> None:
            if not bar.disable:
                bar.update(fraction * total - bar.n)
                return
            seconds = lines.seconds
            rate = f", {fraction * total / max(seconds, 1e-9):.3g} {unit}s/s" if count else ""
            left = f", {seconds * (1.0 - fraction) / fraction:.0f} s left" if 0.0 < fraction < 1.0 else ""
            lines.say(f"{100 * fraction:.0f} %, {seconds:.0f} s{rate}{left}", now=fraction >= 1.0)

        yield report


class _Mean:
    """A running mean that forgets slowly; a single loss says little."""

    def __init__(self) -> None:
        self._value, self._weight = 0.0, 0.0

    def add(self, value: float) -> float:
        self._value = 0.98 * self._value + 0.02 * value
        self._weight = 0.98 * self._weight + 0.02
        return self._value / self._weight
