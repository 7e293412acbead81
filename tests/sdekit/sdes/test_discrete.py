"""The noise levels of SMLD and DDPM, and that the usual steps on them are those of the discrete models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sdekit as sk

SMLD, DDPM = sk.SMLD(levels=20, sigma_max=5.0), sk.DDPM(levels=50)
LAW = sk.GaussianMixture(torch.tensor([[-1.0, 0.3], [0.8, -0.2]], dtype=torch.float64), 0.3)


def recorded(process, solver, n: int, seed: int = 0) -> tuple[list[Tensor], Tensor, Tensor]:
    """States that the score was asked at, the normals of the path, and the end, of n steps to clean data."""
    seen = []
    score = LAW.score(process)

    def watching(t: Tensor, x: Tensor) -> Tensor:
        seen.append((float(t), x))
        return score(t, x)

    x = process.prior_sample((6, 2), seed=1, dtype=torch.float64)
    end = sk.solve(
        sk.reverse(process, watching), x, 1.0, 0.0, solver=solver, steps=sk.FixedSteps(n), seed=sk.KeyedDraws(seed)
    )
    return seen, end.x, end.mean


def test_smld_has_its_geometric_levels_and_none_at_zero() -> None:
    k = torch.arange(20, dtype=torch.float64)
    expected = 0.01 * 500.0 ** (k / 19)
    assert torch.allclose(SMLD.sigma((k + 1) / 20), expected, rtol=1e-12)
    assert float(SMLD.sigma(0.0)) == 0.0
    assert torch.allclose(SMLD.time(expected.log()), (k + 1) / 20, rtol=1e-12)


def test_ddpm_has_its_table_of_products() -> None:
    betas = torch.linspace(0.1 / 50, 20.0 / 50, 50, dtype=torch.float64)
    kept = (1.0 - betas).cumprod(0)
    t = (torch.arange(50, dtype=torch.float64) + 1) / 50
    assert torch.allclose(DDPM.scale(t).square(), kept, rtol=1e-12)
    assert torch.allclose(DDPM.std(t).square(), 1.0 - kept, rtol=1e-12)
    assert torch.allclose(DDPM.time(0.5 * torch.log((1 - kept) / kept)), t, rtol=1e-10)
    multiplier, spread = DDPM.discretize(t, t - 1 / 50)
    assert torch.allclose(multiplier, (1.0 - betas).sqrt(), rtol=1e-10)
    assert torch.allclose(spread, betas.sqrt(), rtol=1e-10)
    multiplier, spread = DDPM.discretize(t[9::10], t[9::10] - 10 / 50)  # every tenth level
    assert torch.allclose(spread.square(), 1.0 - (1.0 - betas).reshape(5, 10).prod(1), rtol=1e-10)


@pytest.mark.parametrize("process", [SMLD, DDPM, sk.SMLD(), sk.DDPM()], ids=str)
def test_their_formulas_are_those_of_one_process(process) -> None:
    t = torch.arange(1, 40, dtype=torch.float64) / 40 * 0.97 + 0.004
    rate, growth = (
        torch.func.jvp(formula, (t,), (torch.ones_like(t),))[1] for formula in (process.log_scale, process.log_sigma)
    )
    assert torch.allclose(process.drift(t, torch.ones_like(t)), rate, rtol=1e-9, atol=1e-12)
    g = process.diffusion(t, torch.ones_like(t))
    assert torch.allclose(g.square(), 2.0 * process.std(t).square() * growth, rtol=1e-8)
    assert torch.allclose(process.time(process.log_sigma(t)), t, rtol=1e-9)
    law = process.transition(0.3, 0.8)
    s0, s1, std0 = process.scale(0.3), process.scale(0.8), process.std(0.3)
    assert torch.allclose(law.mean(torch.ones(1, 1, dtype=torch.float64)), s1 / s0)
    assert torch.allclose((s1 / s0 * std0) ** 2 + law.variance, process.std(0.8) ** 2)


def test_reverse_diffusion_on_smld_is_the_discrete_model_and_ends_denoised() -> None:
    seen, end, mean = recorded(SMLD, sk.ReverseDiffusion(), 20)
    levels = torch.cat((torch.zeros(1, dtype=torch.float64), SMLD.sigma((torch.arange(20.0).double() + 1) / 20)))
    for step, ((t, x), following) in enumerate(zip(seen, [*(x for _, x in seen[1:]), end], strict=True)):
        high, low = levels[20 - step], levels[19 - step]
        assert t == pytest.approx((20 - step) / 20)
        expected = x + (high**2 - low**2) * LAW.score(SMLD)(torch.tensor(t, dtype=torch.float64), x)
        spread = float((following - expected).std())
        assert spread < 4.0 * float((high**2 - low**2).sqrt())
        if step == 19:
            assert torch.allclose(mean, expected, rtol=1e-10, atol=1e-12)
            assert torch.allclose(expected, sk.denoise(SMLD, LAW.score(SMLD), t, x), rtol=1e-10, atol=1e-12)


def test_ancestral_sampling_on_ddpm_is_the_discrete_model() -> None:
    seen, end, mean = recorded(DDPM, sk.Ancestral(), 50)
    betas = torch.linspace(0.1 / 50, 20.0 / 50, 50, dtype=torch.float64)
    noises = []
    for step, ((t, x), following) in enumerate(zip(seen, [*(x for _, x in seen[1:]), end], strict=True)):
        beta = betas[49 - step]
        score = LAW.score(DDPM)(torch.tensor(t, dtype=torch.float64), x)
        noises.append((following - (x + beta * score) / (1 - beta).sqrt()) / beta.sqrt())
    z = torch.stack(noises)
    assert float(z.mean()) == pytest.approx(0.0, abs=4 / math.sqrt(z.numel()))
    assert float(z.square().mean()) == pytest.approx(1.0, abs=4 * math.sqrt(2 / z.numel()))
    assert torch.allclose(mean, sk.denoise(DDPM, LAW.score(DDPM), seen[-1][0], seen[-1][1]), rtol=1e-8, atol=1e-10)


def test_ancestral_steps_to_no_noise_add_none_where_the_scale_is_one() -> None:
    _, end, mean = recorded(SMLD, sk.Ancestral(), 20)
    assert torch.equal(end, mean)


@pytest.mark.parametrize("variance", [None, "small"])
def test_ddpm_in_fewer_steps_has_the_variance_that_its_recursion_says(variance: str | None) -> None:
    process, std = sk.DDPM(levels=200), 0.5
    data = sk.GaussianData(torch.zeros(16, dtype=torch.float64), std=std)
    x = process.prior_sample((2000, 16), seed=1, dtype=torch.float64)
    for n in (200, 50):
        expected = 1.0
        for i in range(n):
            high, low = 1.0 - i / n, 1.0 - (i + 1) / n
            multiplier, spread = process.discretize(high, low)
            kept = (1.0 - spread**2 / ((std * process.scale(high)) ** 2 + process.std(high) ** 2)) / multiplier
            fresh = spread * process.std(low) / process.std(high) if variance == "small" else spread
            expected = float(kept**2 * expected + fresh**2)
        sde, steps = sk.reverse(process, data.score(process)), sk.FixedSteps(n)
        found = sk.solve(sde, x, 1.0, 0.0, solver=sk.Ancestral(variance), steps=steps, seed=2).x
        assert float(found.square().mean()) == pytest.approx(expected, rel=4 * math.sqrt(2 / found.numel()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sk.SMLD(levels=1), "levels"),
        (lambda: sk.SMLD(sigma_min=2.0, sigma_max=1.0), "sigma_min < sigma_max"),
        (lambda: sk.DDPM(levels=10), "beta_max < levels"),
        (lambda: sk.DDPM(levels=2.5), "levels"),
    ],
)
def test_bad_tables_are_named(make, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()
