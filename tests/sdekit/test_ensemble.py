import math

import pytest
import torch

from sdekit import SaveAt, SolveFailed
from sdekit.ensemble import ensemble
from sdekit.protocols import Noise
from sdekit.sdes import GeometricBrownianMotion, ItoSDE
from sdekit.solve import solve
from sdekit.solvers import SRIW1, EulerMaruyama, ItoMilstein
from sdekit.steps import Adaptive, FixedSteps

GBM = GeometricBrownianMotion(mu=0.2, sigma=0.5)
ONE = torch.ones(1, 1, dtype=torch.float64)
EM = {"solver": EulerMaruyama(), "steps": FixedSteps(8)}


def test_moments_and_quantiles_are_those_of_the_law():
    """x(1) of geometric Brownian motion is lognormal; Milstein with 64 steps errs by less than the sampling does."""
    n, z = 40_000, 1.6448536269514722
    found = ensemble(GBM, ONE, 0.0, 1.0, n, solver=ItoMilstein(), steps=FixedSteps(64), levels=(0.05, 0.5, 0.95))
    mean, log_mean = math.exp(0.2), 0.2 - 0.125
    assert found.count == n
    assert abs(float(found.moments.mean) - mean) < 4 * float(found.moments.standard_error)
    assert float(found.moments.std) == pytest.approx(mean * math.sqrt(math.expm1(0.25)), rel=0.03)
    for level, found_at, expected in zip((0.05, 0.5, 0.95), found.quantiles[:, 0], (-z, 0.0, z), strict=True):
        at = math.exp(log_mean + 0.5 * expected)
        density = math.exp(-0.5 * expected**2) / (0.5 * at * math.sqrt(2 * math.pi))
        assert abs(float(found_at) - at) < 4 * math.sqrt(level * (1 - level) / n) / density + 0.002


def test_an_ensemble_is_the_paths_of_one_solve():
    kept = ensemble(GBM, ONE, 0.0, 1.0, 50, **EM, batch=7, keep=True, seed=3, levels=(0.5,), full=True)
    whole = solve(GBM, ONE.expand(50, 1), 0.0, 1.0, **EM, seed=3).x
    assert kept.paths is not None
    torch.testing.assert_close(kept.paths, whole, rtol=1e-14, atol=0)
    torch.testing.assert_close(kept.moments.mean, whole.mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(kept.moments.covariance, torch.cov(whole.T).reshape(1, 1), rtol=1e-12, atol=0)
    torch.testing.assert_close(kept.quantiles[0], whole.quantile(0.5, dim=0), rtol=1e-13, atol=0)
    assert kept.model_calls == 8 * 8


def test_saved_times_are_kept_apart():
    found = ensemble(GBM, ONE, 0.0, 1.0, 2000, **EM, save=SaveAt(times=[0.5, 1.0]), levels=(0.25, 0.75), batch=512)
    assert found.t.tolist() == [0.5, 1.0]
    assert found.quantiles.shape == (2, 2, 1)
    assert found.moments.mean.shape == (2, 1)
    for mean, error, t in zip(found.moments.mean[:, 0], found.moments.standard_error[:, 0], (0.5, 1.0), strict=True):
        exact = (1 + 0.2 / 8) ** (8 * t)
        assert abs(float(mean) - exact) < 4 * float(error)


def test_every_path_may_have_a_start_of_its_own():
    def starts(first: int, count: int) -> torch.Tensor:
        return torch.arange(first, first + count, dtype=torch.float64)[:, None]

    still = ItoSDE(lambda t, x: 0.0 * x, lambda t, x: 0.0 * x, noise=Noise.ADDITIVE)
    found = ensemble(still, starts, 0.0, 1.0, 11, **EM, batch=4, keep=True)
    assert found.paths is not None
    assert found.paths[:, 0].tolist() == list(range(11))


CODE = """
import hashlib
from sdekit import EulerMaruyama, FixedSteps, GeometricBrownianMotion, SRIW1, Adaptive, SaveAt
from sdekit.ensemble import ensemble
from sdekit.processes import Processes
sde, one = GeometricBrownianMotion(mu=0.2, sigma=0.5), torch.ones(1, 3)
for how in ({"solver": EulerMaruyama(), "steps": FixedSteps(16), "save": SaveAt(times=[0.3, 1.0])},
            {"solver": SRIW1(), "steps": Adaptive(rtol=1e-2, atol=1e-2)}):
    found = ensemble(sde, one, 0.0, 1.0, 70, **how, batch=16, keep=True, levels=(0.1, 0.5), seed=5)
    whole = torch.cat(Processes.current().gather(found.paths))
    print(hashlib.sha256(whole.numpy().tobytes()).hexdigest(), len(whole), found.quantiles.tolist())
    print(found.moments.mean.tolist(), found.moments.variance.tolist(), found.model_calls, found.t.tolist())
    assert found.first == (0 if rank == 0 else {2: 32, 3: [0, 16, 48][rank]}[size]), found.first
"""


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_paths_are_bitwise_the_same_on_one_and_on_more_processes(launch, size):
    alone = launch(CODE, 1)[0].splitlines()
    for said in launch(CODE, size):
        lines = said.splitlines()
        assert lines[0::2] == alone[0::2]
        for ours, theirs in zip(lines[1::2], alone[1::2], strict=True):
            numbers, expected = (torch.tensor(_numbers(line), dtype=torch.float64) for line in (ours, theirs))
            torch.testing.assert_close(numbers, expected, rtol=1e-13, atol=1e-15)


def _numbers(line: str) -> list[float]:
    return [float(word) for word in line.replace("[", " ").replace("]", " ").replace(",", " ").split()]


FAILS = """
from sdekit import EulerMaruyama, FixedSteps, ItoSDE, Noise
from sdekit.ensemble import ensemble
sde = ItoSDE(lambda t, x: x / (x - x + (x < 6).to(x.dtype)), lambda t, x: 0 * x, noise=Noise.DIAGONAL)
try:
    ensemble(sde, lambda first, count: torch.full((count, 1), float(first)), 0.0, 1.0, 8,
             solver=EulerMaruyama(), steps=FixedSteps(2), batch=2)
except Exception as problem:
    print(type(problem).__name__, problem)
"""


def test_where_one_process_fails_all_say_so(launch):
    first, second = launch(FAILS, 2)
    assert second.startswith("SolveFailed 2 of 2 samples did not reach t1")
    assert first.startswith("ProcessFailed process 1 of 2: 2 of 2 samples did not reach t1")


def test_ensembles_that_cannot_be_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="n: the number of paths must be an integer of 1"):
        ensemble(GBM, ONE, 0.0, 1.0, 0, **EM)
    with pytest.raises(ValueError, match="one state"):
        ensemble(GBM, ONE.expand(3, 1), 0.0, 1.0, 4, **EM)
    with pytest.raises(ValueError, match="returned 1 states for count = 4"):
        ensemble(GBM, lambda first, count: ONE, 0.0, 1.0, 4, **EM)
    with pytest.raises(SolveFailed):
        ensemble(GBM, ONE * math.inf, 0.0, 1.0, 4, **EM)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="RANK is not set; start by torchrun"):
        ensemble(GBM, ONE, 0.0, 1.0, 4, **EM)
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ValueError, match="WORLD_SIZE is 'many'"):
        ensemble(GBM, ONE, 0.0, 1.0, 4, **EM)


def test_adaptive_paths_do_not_depend_on_their_block():
    how = {"solver": SRIW1(), "steps": Adaptive(rtol=1e-2, atol=1e-2), "keep": True}
    a, b = (ensemble(GBM, ONE, 0.0, 1.0, 20, **how, batch=batch).paths for batch in (20, 6))
    assert a is not None
    assert b is not None
    torch.testing.assert_close(a, b, rtol=1e-13, atol=0)
