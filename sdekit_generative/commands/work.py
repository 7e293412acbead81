"""A command at work with the model of a run: how far it is, what it takes, and, where it fails, whose fault it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..progress import work_bar
from ..results import counting, made_with
from ..run import Run
from .options import Machine, Model, blaming


class Work:
    """What is done with the model of a run, and the record of it that goes beside its results.

    run     folder of the run
    given   which of its weights
    on      where to compute
    """

    def __init__(self, run: Path, given: Model, on: Machine) -> None:
        self.run, self.given, self.model = run, given, given.load(run, on.start())
        self.evaluations, self.seconds = 0, 0.0

    @contextmanager
    def bar(self, title: str, count: int, unit: str = "image") -> Iterator[Callable[[float], None]]:
        """Counts seconds and network evaluations of what is done inside; yields what is called with the fraction done."""
        start = time.perf_counter()
        with blaming(self.run), work_bar(title, count, unit) as progress, counting(self.model.network) as calls:
            yield progress
        self.seconds += time.perf_counter() - start
        self.evaluations += calls.count

    def record(self, **more: Any) -> dict[str, Any]:
        """What goes into the .json: the run, its recipe and model, what it took, and what else is said.

        network_evaluations are the calls of the network, an image's own where all are made in one batch; say otherwise.
        """
        took = {"network_evaluations": self.evaluations, "seconds": round(self.seconds, 2)}
        about = {"run": str(self.run), "checkpoint": self.given.checkpoint, "average": self.given.average, **took}
        told = {name: str(value) if isinstance(value, Path) else value for name, value in more.items()}
        return made_with(self.model, Run.open(self.run).recipe(), **about | told)
