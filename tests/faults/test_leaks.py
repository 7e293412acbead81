"""Many solves of all kinds leave nothing behind: no memory, no threads, no open files."""

import gc
import math
import os
import random
import threading
from pathlib import Path

import pytest
import torch

import sdekit as sk

from .broken import CASES, NOTHING, Fault

FIXED, ADAPTIVE = sk.FixedSteps(8), sk.Adaptive(rtol=1e-2, atol=1e-2, max_steps=300)
MIB = 1 << 20
LIMIT = 10 * MIB
SHAPES = ((3,), (2, 4, 4), (64,), (3, 16, 16))

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")


def _memory() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _held() -> tuple[int, int, int]:
    """Python's threads, the system's threads, open files."""
    return threading.active_count(), len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def _plain(dice: random.Random) -> None:
    case = dice.choice(CASES)
    steps = dice.choice([FIXED, ADAPTIVE]) if case.adapts else FIXED
    save = dice.choice([None, sk.SaveAt(times=[case.make(Fault(NOTHING), (3,), torch.float64).t1])])
    case.run(Fault(NOTHING), dice.choice(case.shapes), dice.choice([torch.float32, torch.float64]), steps, save=save)


def _failing(dice: random.Random) -> None:
    case = dice.choice(CASES)
    case.run(Fault(dice.choice(case.places), math.nan, call=3), (3,), torch.float64, FIXED)
    with pytest.raises(sk.SolveFailed):
        sk.solve(sk.ODE(lambda t, x: x / 0), torch.ones(2, 2), 0.0, 1.0, solver=sk.RK4(), steps=FIXED)


def _with_a_tree(dice: random.Random) -> None:
    shape = (4, *dice.choice(SHAPES))
    levy = dice.choice([sk.Levy.W, sk.Levy.H, sk.Levy.K])
    tree = sk.BrownianTree(0.0, 1.0, shape, seed=dice.randrange(100), levy=levy)
    scale = dice.random()
    sde = sk.ItoSDE(lambda t, x: -scale * x, lambda t, x: 0.3 * torch.ones_like(x), sk.Noise.ADDITIVE)
    sk.solve(sde, torch.ones(shape), 0.0, 1.0, solver=sk.EulerMaruyama(), steps=FIXED, path=tree)
    sk.solve(sde, torch.ones(shape), 0.0, 1.0, solver=sk.SRA1(), steps=ADAPTIVE, seed=dice.randrange(100))


def _with_derivatives(dice: random.Random) -> None:
    network = torch.nn.Linear(3, 3)
    way = dice.choice([None, sk.Checkpointed(), sk.ReversibleAdjoint()])
    sde = sk.StratonovichSDE(lambda t, x: network(x), lambda t, x: 0.1 * torch.ones_like(x), sk.Noise.ADDITIVE)
    x0 = torch.ones(16, 3, requires_grad=True)
    sol = sk.solve(sde, x0, 0.0, 1.0, solver=sk.ReversibleHeun(), steps=sk.FixedSteps(32), gradient=way)
    sol.x.square().sum().backward()


def _with_events_and_interpolants(dice: random.Random) -> None:
    event = sk.Event(lambda t, x: x[:, 0] - 0.5)
    decay = sk.ODE(lambda t, x: -x)
    sk.solve(decay, torch.ones(4, 2), 0.0, 1.0, solver=sk.Dopri5(), steps=ADAPTIVE, event=event)
    sol = sk.solve(decay, torch.ones(4, 2), 0.0, 1.0, solver=sk.Dopri5(), steps=FIXED, save=sk.SaveAt(dense=True))
    sol.at(dice.random())


def _likelihood(dice: random.Random) -> None:
    scale = 1.0 + dice.random()
    sk.log_likelihood(
        sk.VP(), lambda t, x: -x / scale, torch.ones(4, 3), solver=sk.Bosh3(), steps=ADAPTIVE,
        divergence=sk.Hutchinson(2), seed=dice.randrange(100),
    )  # fmt: skip


KINDS = (_plain, _plain, _failing, _with_a_tree, _with_derivatives, _with_events_and_interpolants, _likelihood)


def _grown(solves: int) -> int:
    """Bytes by which the process grew over so many solves, after as many that make what is made once."""
    dice = random.Random(0)
    for i in range(solves):
        KINDS[i % len(KINDS)](dice)
    held, before = _held(), _memory()
    for i in range(solves):
        KINDS[i % len(KINDS)](dice)
    after = _memory()
    assert _held() == held
    return after - before


def test_some_solves_of_every_kind_leave_nothing_behind():
    assert _grown(4 * len(KINDS)) < LIMIT


@pytest.mark.slow
def test_three_hundred_solves_leave_nothing_behind():
    grown = _grown(300)
    assert grown < LIMIT, f"{grown / MIB:.1f} MiB"


def test_what_a_solve_held_is_freed_with_its_solution():
    class Marked(torch.nn.Module):
        def forward(self, t, x):
            return -x

    import weakref

    for steps in (FIXED, ADAPTIVE):
        drift = Marked()
        seen = weakref.ref(drift)
        sol = sk.solve(sk.ODE(drift), torch.ones(2, 2), 0.0, 1.0, solver=sk.Dopri5(), steps=steps)
        del sol, drift
        gc.collect()
        assert seen() is None
