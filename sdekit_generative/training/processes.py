"""The processes that train one model together, started by torchrun; alone is the usual case.

Every process holds the same weights and sees its own part of each batch; gradients are averaged over all of them. What
must be the same everywhere is compared, since processes that disagree would train something that nobody asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from sdekit import processes as together

from ..errors import RunError


@dataclass(frozen=True)
class Processes(together.Processes):
    """One process of `size`: number `rank`, which computes on `device`."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def part(self, total: int) -> tuple[int, int]:
        """(first, n): this process's equal part of `total` samples. Raises RunError where there is none."""
        if total % self.size:
            raise RunError(f"{total} images a step cannot be shared evenly by {self.size} processes")
        n = total // self.size
        return self.rank * n, n

    def add_up(self, value: float) -> float:
        """The sum of a number over all processes."""
        return value if self.size == 1 else float(self.sum(torch.tensor(value, dtype=torch.float64)))

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """A piece of work of every process; raises RunError in all others where one fails, with what it said."""
        try:
            with self.together():
                yield
        except together.ProcessFailed as problem:
            raise RunError(str(problem)) from None

    def check_same(self, name: str, value: object) -> None:
        """Raises RunError, in every process, unless all have the same value."""
        values = self.gather(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise RunError(f"the processes do not agree: {name} is {values[0]} in process 0 and {other} in {rank}")

    def __str__(self) -> str:
        if self.size == 1:
            return f"1 process on {self.device}"
        return f"{self.size} processes ({'nccl' if self.device.type == 'cuda' else 'gloo'}) on {self.device.type}"


def check_count(wanted: int | None) -> None:
    """Raises RunError unless as many processes were started as are wanted."""
    found = together.launched() or 1
    if wanted is not None and wanted != found:
        raise RunError(
            f"{wanted} processes were asked for, but {found} {'was' if found == 1 else 'were'} started; "
            f"start with: torchrun --nproc_per_node={wanted} -m sdekit_generative train …"
        )


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """The present process, joined with the others that torchrun started, until the block ends.

    On CUDA each takes the device of its local rank, and gradients are exchanged by nccl.
    """
    several = (together.launched() or 1) > 1
    if several and device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl")
    try:
        with together.processes() as group:
            yield Processes(group.rank, group.size, device)
    finally:
        if several and dist.is_initialized():
            dist.destroy_process_group()
