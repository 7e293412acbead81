"""Runs, the children that make them, and what two of them differ in."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from sdekit_generative.__main__ import main
from sdekit_generative.recipes import Recipe
from sdekit_generative.train import begin, resume
from sdekit_generative.training import Stop, checkpoint


def train(folder: Path, recipe: Recipe) -> None:
    job = resume(folder, lambda before: before) if (folder / "recipe.json").exists() else begin(folder, recipe)
    job.train(Stop(), lambda step, loss: None)


def in_a_child(
    work: Callable[[], int | None],
    number: int = signal.SIGKILL,
    after: float | None = None,
    since: Callable[[int], bool] = lambda child: True,
) -> int:
    """Do work in a forked child, and send it a signal so many seconds after something holds of it, or a minute.

    Returns the status that the work returned, 1 where it raised anything, or minus the signal that ended it.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = work() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if after is not None:
        start = time.monotonic()
        while not since(child) and time.monotonic() - start < 60.0:
            time.sleep(0.001)
        time.sleep(after)
        os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def minds(child: int) -> bool:
    """Whether a process has a handler of its own for SIGTERM by now, as the command has from its beginning."""
    status = Path(f"/proc/{child}/status")
    if not status.exists():
        return True
    caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def commanded(arguments: list[str], said: Path) -> int:
    """The command in this (forked) process, what it says in a file; returns its exit status."""
    stream = said.open("a", buffering=1)
    for descriptor in (1, 2):
        os.dup2(stream.fileno(), descriptor)
    sys.stdout = sys.stderr = stream
    sys.argv = ["sdekit-generative", *arguments]
    try:
        main()
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


def undisturbed(folder: Path, recipe: Recipe) -> tuple[Path, float]:
    """(a run that nobody disturbed, the seconds it took); everything is imported, and warm, before it."""
    train(folder / "warm", recipe)
    start = time.perf_counter()
    train(folder / "whole", recipe)
    return folder / "whole", time.perf_counter() - start


def differences(run: Path, whole: Path) -> list[str]:
    """In what the ends of two runs differ: weights, averages, moments, state, snapshots, log; nothing, if in nothing."""
    found = [] if (run / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes() else ["log.jsonl"]
    for root in ("checkpoints", "snapshots"):
        folders = [[f.name for f in sorted((place / root).glob("*"))] for place in (run, whole)]
        if folders[0] != folders[1]:
            found.append(f"{root}: {folders[0]}")
            continue
        for name in folders[0]:
            ours, theirs = (checkpoint.read(place / root / name) for place in (run, whole))
            found += ["state"] if ours.state != theirs.state else []
            found += [
                f"{name}/{group}/{place}"
                for group, tensors in theirs.tensors.items()
                for place, tensor in tensors.items()
                if not torch.equal(ours.tensors[group].get(place, torch.empty(0)), tensor)
            ]
    return found
