"""What several commands have in common: their options, and how they speak."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from ..errors import UserError

if TYPE_CHECKING:
    import torch

Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Changes = Annotated[list[str] | None, Parameter(name="--set", negative="")]
Flag = Annotated[bool, Parameter(negative="")]


def say(text: str) -> None:
    """Print a result."""
    print(text, flush=True)  # noqa: T201


def warn(text: str) -> None:
    """Print something worth knowing that is no result."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def use_threads(given: int | None, recorded: int | None = None) -> None:
    """Fix the number of torch threads; results are the same bit for bit only for the same number.

    Two by default: more gain little on networks of this size, and where other processes are busy they cost a lot.
    """
    import torch

    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    default = min(2, available, int(os.environ.get("OMP_NUM_THREADS", available)))
    threads = given or recorded or default
    if recorded is not None and threads != recorded:
        warn(f"note: begun with {recorded} threads, going on with {threads}: the results will agree to rounding only")
    torch.set_num_threads(threads)


def find_device(name: str) -> torch.device:
    """The device that --device names. Raises UserError for one that cannot be used."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device: {name} is not a device this torch can use; try auto or cpu") from None
    return device


def changes(assignments: Sequence[str] | None, **named: object) -> dict[str, str]:
    """`--set place=value` and the options that are short for one, as {place: value}."""
    found: dict[str, str] = {}
    for assignment in assignments or ():
        place, equals, value = assignment.partition("=")
        if not (place and equals):
            raise UserError(f"--set: expected place=value such as training.steps=200, got {assignment}")
        found[place] = value
    found.update({f"training.{name}": str(value) for name, value in named.items() if value is not None})
    return found


@contextmanager
def blaming(run: Path) -> Iterator[None]:
    """Says of a solve that fails whose fault it is: a trained score that is not finite."""
    from sdekit.errors import SolveFailed, Status

    try:
        yield
    except SolveFailed as problem:
        failed = int((problem.solution.status > Status.EVENT).sum())
        raise UserError(
            f"{run}: the model gives no finite result for {failed} images; was its training unstable?"
        ) from problem
