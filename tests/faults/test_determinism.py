"""The same seed gives the same bits, in any batch, chunk and process."""

import hashlib
import os
import random
import subprocess
import sys

import pytest
import torch

import sdekit as sk
import sdekit_generative as sg

from .broken import CASES, EACH_SOLVER, NOTHING, Case, Fault

FIXED, ADAPTIVE = sk.FixedSteps(6), sk.Adaptive(rtol=1e-2, atol=1e-2, max_steps=400)
WHOLE, HALF = 64, 32
ITERATING = (sk.DriftImplicitEuler, sk.SplitStepEuler)  # until the last sample has converged


def _batch(case: Case, shape, dtype, steps, rows, count=WHOLE) -> sk.Solution:
    """The solve of some rows of a batch, with the noise of their places in it."""
    sde, x0, t0, t1 = case.make(Fault(NOTHING), shape, dtype)
    generator = torch.Generator().manual_seed(3)
    everything = torch.randn((count, *x0.shape[1:]), generator=generator, dtype=torch.float64) * float(
        x0.double().std()
    )
    part = everything.to(dtype)[rows]
    return sk.solve(sde, part, t0, t1, solver=case.solver, steps=steps, seed=7, first=rows.start)


def _steps(case: Case):
    return [FIXED, ADAPTIVE] if case.adapts else [FIXED]


def _compare(case: Case, shape, dtype, steps, singles) -> None:
    whole = _batch(case, shape, dtype, steps, slice(0, WHOLE))
    again = _batch(case, shape, dtype, steps, slice(0, WHOLE))
    assert torch.equal(whole.x, again.x)
    assert torch.equal(whole.stats.accepted, again.stats.accepted)
    slices = [slice(0, HALF), slice(HALF, WHOLE), *(slice(i, i + 1) for i in singles)]
    # products of matrices and vectorised functions round by the number of rows
    rounding = 2e-4 if dtype is torch.float32 else 1e-11
    for rows in slices:
        part = _batch(case, shape, dtype, steps, rows)
        torch.testing.assert_close(part.x, whole.x[rows], rtol=rounding, atol=rounding * float(whole.x.abs().max()))
        assert torch.equal(part.stats.accepted, whole.stats.accepted[rows])
        assert torch.equal(part.stats.rejected, whole.stats.rejected[rows])
        if not isinstance(case.solver, ITERATING):
            assert torch.equal(part.stats.evaluations, whole.stats.evaluations[rows])


@pytest.mark.parametrize("case", EACH_SOLVER[::4], ids=lambda case: case.name)
def test_a_batch_is_its_halves_and_its_samples(case):
    for steps in _steps(case):
        _compare(case, (3,), torch.float64, steps, (0, 41))


@pytest.mark.slow
@pytest.mark.parametrize("case", EACH_SOLVER, ids=lambda case: case.name)
def test_every_batch_is_its_halves_and_its_samples(case):
    for shape in case.shapes:
        for steps in _steps(case):
            dtypes = (torch.float32, torch.float64) if steps is FIXED else (torch.float64,)
            for dtype in dtypes:
                every = steps is FIXED and dtype is torch.float64 and shape == (3,)
                _compare(case, shape, dtype, steps, range(0, WHOLE, 1 if every else 16))


PROGRAM = """
import hashlib, random, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from faults.test_determinism import fingerprints
print("\\n".join(fingerprints()))
"""


def fingerprints() -> list[str]:
    """SHA-256 of the bits of several solves, likelihoods and generated images."""
    dice, found = random.Random(5), []
    for case in dice.sample(CASES, 8):
        for steps in _steps(case):
            x = _batch(case, (3,), torch.float32, steps, slice(0, 8), count=8).x
            found.append(f"{case.name} {type(steps).__name__} {_digest(x)}")
    ll = sk.log_likelihood(
        sk.VP(), lambda t, x: -x, torch.ones(3, 2), solver=sk.RK4(), steps=sk.FixedSteps(4), divergence=sk.Hutchinson(2)
    )
    found.append(f"likelihood {_digest(ll.log_prob)}")
    model = sg.ScoreModel(_Half(), sk.VP(), sg.PredictVelocity(0.5), sg.DataRange(-1, 1), (1, 4, 4), 17)
    found.append(f"images {_digest(sg.generate(model, 3, sg.Fast(steps=4, churn=1.0), seed=2))}")
    return found


class _Half(torch.nn.Module):
    def forward(self, x, c):
        return 0.5 * x


def _digest(x: torch.Tensor) -> str:
    return hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()


def test_two_processes_compute_the_same_bits():
    here = fingerprints()
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "PYTHONHASHSEED": "17", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(part or os.getcwd() for part in sys.path)
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, root], capture_output=True, text=True, env=environment, timeout=300, check=True
    )
    assert said.stdout.splitlines() == here


def test_what_else_is_drawn_between_makes_no_difference():
    case = next(case for case in CASES if case.name == "SRI diagonal")
    alone = _batch(case, (3,), torch.float64, ADAPTIVE, slice(0, 8), 8)
    torch.manual_seed(1)
    torch.randn(1000)
    _batch(case, (2, 4, 4), torch.float32, FIXED, slice(0, 8), 8)
    torch.randn(10)
    assert torch.equal(_batch(case, (3,), torch.float64, ADAPTIVE, slice(0, 8), 8).x, alone.x)
