"""The command line: the commands' results and errors as exit statuses. Parsing needs no torch.

Exit status: 0 done (or stopped by SIGTERM, with everything saved), 2 and one line for anything the user can mend, 130
after SIGINT. `--debug` anywhere shows the traceback.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cyclopts import CycloptsError

from .commands import app
from .errors import CheckpointWarning, DataWarning, UserError

USER_ERROR, INTERRUPTED = 2, 130
_OURS = (CheckpointWarning, DataWarning)


def _one_line(problem: BaseException) -> str:
    return " ".join(str(problem).split()) or type(problem).__name__


@contextmanager
def _notes() -> Iterator[None]:
    """Warnings of ours as one line each."""
    with warnings.catch_warnings():
        for category in _OURS:
            warnings.simplefilter("always", category)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, _OURS):
                print(f"note: {message}", file=sys.stderr)  # noqa: T201
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
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, OSError, ValueError) as problem:
        if debug:
            raise
        print(f"sdekit-generative: error: {_one_line(problem)}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
