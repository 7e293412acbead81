"""The command line: the commands' results and errors as exit statuses. Parsing needs no torch.

Exit status: 0 done (or stopped by SIGTERM, with everything saved), 2 and one line for anything the user can mend, 130
after SIGINT. `--debug` anywhere shows the traceback.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cyclopts import CycloptsError

from .commands import app
from .errors import CheckpointWarning, DataWarning, UserError
from .extras import advice

USER_ERROR, INTERRUPTED = 2, 130
_OURS = (CheckpointWarning, DataWarning)
_NO_ROOM = "can't allocate memory"  # how torch says it on a CPU


def _one_line(problem: object) -> str:
    text = " ".join(str(problem).split()) or type(problem).__name__
    return "".join(c if c.isprintable() else "?" for c in text)  # names of files may hold what steers a terminal


def _explained(problem: Exception) -> str | None:
    """What there is to say of what the user can mend; None of anything else."""
    if isinstance(problem, ImportError):
        return advice(problem)
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError" or _NO_ROOM in str(problem):
        return "this does not fit into memory; try a smaller batch, network or image"
    return _one_line(problem) if isinstance(problem, (UserError, OSError, ValueError)) else None


@contextmanager
def _notes() -> Iterator[None]:
    """Warnings of ours as one line each."""
    with warnings.catch_warnings():
        for category in _OURS:
            warnings.simplefilter("always", category)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, _OURS):
                print(f"note: {_one_line(message)}", file=sys.stderr)  # noqa: T201
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit status, and raises what is not the user's to mend."""
    try:
        result = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as problem:
        raise UserError(_one_line(problem)) from problem
    return result if isinstance(result, int) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: turns every error of use into one line on stderr and status 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        with _notes():
            return run([a for a in given if a != "--debug"])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except Exception as problem:
        said = _explained(problem)
        if debug or said is None:
            raise
        print(f"sdekit-generative: error: {said}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
