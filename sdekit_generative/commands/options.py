"""What several commands have in common: their options, and how they speak.

    Machine   --threads, --device          Drawn   --images (--n), --first, --seed: images to be made
    Picture   --out                        Taken   --images (--count), --first: images that there are
    Weights   --checkpoint, --average      Model   as Weights, and --precision

A command takes a record of options as one argument, `on: Machine = Machine()`; they are options of the command itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators

from ..errors import UserError

if TYPE_CHECKING:
    import torch

    from ..model import ScoreModel
    from ..results import Result

Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Changes = Annotated[list[str] | None, Parameter(name="--set", negative="")]
Flag = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class Machine:
    """Where a command computes.

    Parameters
    ----------
    threads
        Torch threads. [default: 2 at most; for a run that goes on, as before]
    device
        auto, cpu, cuda, …
    """

    threads: Count | None = None
    device: str = "auto"

    def start(self) -> torch.device:
        """Fix the threads; returns the device. Raises UserError for one that cannot be used."""
        use_threads(self.threads)
        return find_device(self.device)


@Parameter(name="*")
@dataclass(frozen=True)
class Weights:
    """Which weights of a run.

    Parameters
    ----------
    checkpoint
        Which checkpoint: the newest, or the best that training measured.
    average
        Width of a power-function average of the weights to put together from the run's snapshots, such as 0.08.
        [default: the average that the checkpoint keeps]
    """

    checkpoint: Literal["newest", "best"] = "newest"
    average: float | None = None

    def load(self, run: Path, device: torch.device | str = "cpu") -> ScoreModel:
        """The model of a run with these weights. Raises as `sdekit_generative.run.load` does."""
        from ..run import load

        return load(run, device, self.checkpoint, self.average)


@Parameter(name="*")
@dataclass(frozen=True)
class Model(Weights):
    """Which weights of a run, and how exactly they are evaluated.

    Parameters
    ----------
    precision
        What the network is evaluated in: float32, or bfloat16 or float16 by autocast, which GPUs are faster at. All else
        is computed as before.
    """

    precision: Literal["float32", "bfloat16", "float16"] = "float32"

    def load(self, run: Path, device: torch.device | str = "cpu") -> ScoreModel:
        """The model of a run with these weights and this precision. Raises as `sdekit_generative.run.load` does."""
        from ..training.settings import PRECISIONS

        return replace(super().load(run, device), precision=PRECISIONS[self.precision])


@Parameter(name="*")
@dataclass(frozen=True)
class Drawn:
    """Which images are made.

    Parameters
    ----------
    images
        Which images: their numbers, 0-63, or how many, 64. Image i depends on the seed and i only.
        [default: 64; for film 8]
    first
        Number of the first image, where --images says how many.
    seed
        Image i of a seed is always the same one.
    """

    images: Annotated[str | None, Parameter(name=("--images", "--n"))] = None
    first: int = 0
    seed: int = 0

    def span(self, usual: int) -> range:
        """The numbers of the images; as many as usual where nothing is said. Raises UserError for what is none."""
        return numbers(self.images, self.first, usual)


@Parameter(name="*")
@dataclass(frozen=True)
class Taken:
    """Which of the images that there are.

    Parameters
    ----------
    images
        Which of the images that there are: their numbers, 0-3, or how many, 4. [default: a few; for
        likelihood all]
    first
        Number of the first image, where --images says how many.
    """

    images: Annotated[str | None, Parameter(name=("--images", "--count"))] = None
    first: int = 0

    def span(self, usual: int) -> range:
        """The numbers of the images; as many as usual where nothing is said. Raises UserError for what is none."""
        return numbers(self.images, self.first, usual)


@Parameter(name="*")
@dataclass(frozen=True)
class Picture:
    """Where a picture goes.

    Parameters
    ----------
    out
        The PNG to write. Beside it go the images (.npz) and what they were made with (.json); none may exist yet.
        [default: in RUN, named after what is drawn]
    """

    out: Path | None = None

    def files(self, usual: Path) -> Result:
        """The files to write. Raises UserError where one exists already."""
        from ..results import Result

        return Result.vacant(self.out or usual)


def numbers(given: str | None, first: int, usual: int) -> range:
    """Numbers of images: "64" is first … first + 63, "8-15" is 8 … 15."""
    text = str(usual) if given is None else given
    low, dash, high = text.partition("-")
    if not (low.isdecimal() and (high.isdecimal() or not dash)):
        raise UserError(f"--images: expected how many, such as 64, or their numbers, such as 0-63, got {text!r}")
    if dash and first:
        raise UserError(f"--first: --images {text} says already which is the first")
    if first < 0:
        raise UserError(f"--first: expected 0 or more, got {first}")
    found = range(int(low), int(high) + 1) if dash else range(first, first + int(low))
    if not found:
        wanted = f"the last number is below the first in {text}" if dash else f"expected 1 or more, got {text}"
        raise UserError(f"--images: {wanted}")
    return found


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
