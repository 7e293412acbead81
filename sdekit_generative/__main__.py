"""`python -m sdekit_generative`, and the `sdekit-generative` command: the signals and streams of the process."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any, TextIO

from .extras import advice


class _Stream:
    """A stream whose reader may go (`… | head`): the work goes on, unheard. What cannot be encoded is written out.

    Results that cannot be written for another reason are an error; notes and errors themselves are not.
    """

    def __init__(self, stream: TextIO, results: bool) -> None:
        self._stream, self._results = stream, results
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as problem:
            self._silence(problem)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as problem:
            self._silence(problem)

    def _silence(self, problem: OSError) -> None:
        """Let what is still to be written go nowhere, so that it does not fail again as the process ends."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        if self._results and not isinstance(problem, BrokenPipeError):
            raise problem

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def main() -> None:
    """Run the command line and exit with its status; outside of training SIGTERM has nothing to save, and gives 0."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 - None where it was closed
        setattr(sys, name, _Stream(stream, results=name == "stdout"))
    try:
        from .cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as problem:
        if advice(problem) is None:
            raise
        print(f"sdekit-generative: error: {advice(problem)}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    sys.exit(run())


if __name__ == "__main__":
    main()
