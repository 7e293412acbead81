"""The processes that work on one thing together, under `torchrun` or alone.

    with processes() as group:
        mine = group.share(1000)            # this process's part of 0 … 999
        total = group.sum(part)             # the same on every process

The code is the same for one process and for many; alone, nothing of torch.distributed is touched.

Notation: P the number of processes, p this one's rank.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch import Tensor

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = timedelta(hours=12)  # one process may wait for another's last chunk of work


class ProcessFailed(RuntimeError):
    """Another of the processes failed at what all do together; the message says which, and repeats what it said."""


class LaunchError(ValueError):
    """Processes that were started in a way in which they cannot find each other."""


@dataclass(frozen=True)
class Processes:
    """One process among those started together: its rank, and how many there are."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Processes:
        """Those of torch.distributed's default group, or this one alone where there is none."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        """Whether this is the process that speaks and writes for all."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """The part of this process of 0 … n − 1: contiguous, in the order of ranks, equal to within one."""
        return range(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def wait(self) -> None:
        """Go on when every process is here."""
        self.gather(None)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes."""
        return self._reduce(tensor, "SUM")

    def min(self, tensor: Tensor) -> Tensor:
        """The smallest over processes, entry by entry."""
        return self._reduce(tensor, "MIN")

    def max(self, tensor: Tensor) -> Tensor:
        """The largest over processes, entry by entry."""
        return self._reduce(tensor, "MAX")

    def _reduce(self, tensor: Tensor, how: str) -> Tensor:
        if self.size == 1:
            return tensor
        # nccl speaks of tensors on its device only, gloo of those on the CPU
        result = tensor.to("cuda" if dist.get_backend() == "nccl" else "cpu", copy=True).contiguous()
        dist.all_reduce(result, op=getattr(dist.ReduceOp, how))
        return result.to(tensor.device)

    def gather(self, value: Any) -> list[Any]:
        """What every process holds, in the order of ranks: small values, or tensors on the CPU."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    @contextmanager
    def together(self) -> Generator[None]:
        """A piece of work that every process does its part of: where one fails, all do, and none waits for it forever.

        Raises the process's own error, or ProcessFailed for another's.
        """
        problem: Exception | None = None
        try:
            yield
        except Exception as error:
            problem = error
        said = self.gather(None if problem is None else str(problem) or type(problem).__name__)
        if problem is not None:
            raise problem
        for rank, message in enumerate(said):
            if message is not None:
                raise ProcessFailed(f"process {rank} of {self.size}: {message}")


@contextmanager
def processes() -> Generator[Processes]:
    """The processes started together: joins those that `torchrun` launched, unless joined already.

    They speak by gloo, since what they tell each other here is small and on the CPU.

    Raises LaunchError where the environment speaks of several processes but does not say how to reach them, or a group
    exists that has another number of them.
    """
    world = launched()
    if dist.is_available() and dist.is_initialized():
        group = Processes.current()
        if world not in (None, group.size):
            raise LaunchError(f"WORLD_SIZE is {world}, but the processes that found each other are {group.size}")
        yield group
        return
    if world is None or world == 1:
        yield Processes()
        return
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Processes.current()
    finally:
        dist.destroy_process_group()


def whole(tensor: Tensor) -> Tensor:
    """A tensor as it is in one process; where it is split, all processes must ask for it together."""
    full = getattr(tensor, "full_tensor", None)
    return tensor.detach() if full is None else full().detach()


def launched() -> int | None:
    """How many processes were launched together, WORLD_SIZE; None where nothing was. Raises LaunchError for no number."""
    given = os.environ.get("WORLD_SIZE")
    if given is None:
        return None
    if not given.isdigit() or int(given) < 1:
        raise LaunchError(f"WORLD_SIZE is {given!r}; start several processes by torchrun --nproc-per-node=…")
    missing = [name for name in _VARIABLES if name not in os.environ]
    if int(given) > 1 and missing:
        raise LaunchError(
            f"WORLD_SIZE is {given} but {missing[0]} is not set; start by torchrun, or unset WORLD_SIZE for one process"
        )
    return int(given)
