"""Encoding, decoding and what lies between latents."""

from __future__ import annotations

import math

import pytest
import torch

import sdekit as sk

LAW = sk.GaussianMixture(torch.tensor([[-1.0, 0.5, 0.0], [1.0, -0.5, 0.3]], dtype=torch.float64), 0.3)
PROCESSES = [sk.VE(), sk.VP(), sk.SubVP(), sk.EDM(), sk.RectifiedFlow()]
TIGHT = {"solver": sk.Dopri8(), "steps": sk.Adaptive(rtol=1e-9, atol=1e-9)}


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_what_is_encoded_and_decoded_is_what_it_was(process) -> None:
    score = LAW.score(process)
    x = LAW.at(process, process.t_min).sample(8, seed=1)
    latent = sk.encode(process, score, x, **TIGHT).x
    assert torch.allclose(sk.decode(process, score, latent, **TIGHT).x, x, atol=1e-6)
    # a multistep sampler on a grid goes both ways too
    there = sk.encode(
        process,
        score,
        x,
        solver=sk.AngularAdams(3),
        steps=sk.angle_grid(process, 200, t0=process.t_min, t1=process.t_max),
    ).x
    assert torch.allclose(there, latent, rtol=2e-4, atol=2e-4)


def test_latent_codes_are_those_of_the_likelihood() -> None:
    process = sk.VP()
    x = LAW.at(process, process.t_min).sample(4, seed=1)
    ll = sk.log_likelihood(process, LAW.score(process), x, solver=sk.Dopri8(), steps=sk.Adaptive(rtol=1e-9, atol=1e-9))
    assert torch.allclose(sk.encode(process, LAW.score(process), x, **TIGHT).x, ll.latent, atol=1e-6)


def test_temperature_narrows_a_gaussian_by_its_factor() -> None:
    process, data = sk.VE(), sk.GaussianData(torch.zeros(2, dtype=torch.float64), std=0.5)
    z = process.prior_sample((500, 2), seed=1, dtype=torch.float64)
    warm, cold = (sk.decode(process, data.score(process), z, temperature=tau, **TIGHT).x for tau in (1.0, 0.7))
    assert torch.allclose(cold, 0.7 * warm, rtol=1e-6, atol=1e-8)  # the flow of a Gaussian is linear


@pytest.mark.parametrize("shape", [(5,), (2, 3, 3)])
def test_the_sphere_keeps_the_norm_and_turns_at_constant_speed(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, *shape, dtype=torch.float64, generator=generator) for _ in range(2))
    a, b = (v / v.flatten(1).norm(dim=1).reshape(-1, *(1,) * len(shape)) for v in (a, b))
    weights = torch.linspace(0, 1, 9)
    between = sk.interpolate(a, b, weights)
    assert between.shape == (9, 4, *shape)
    assert torch.allclose(between[0], a)
    assert torch.allclose(between[-1], b)
    assert torch.allclose(between.flatten(2).norm(dim=2), torch.ones(9, 4, dtype=torch.float64))
    turns = (between[1:] * between[:-1]).flatten(2).sum(2).acos()
    whole = (a * b).flatten(1).sum(1).acos()
    assert torch.allclose(turns, (whole / 8).expand(8, -1), rtol=1e-6)
    assert torch.equal(sk.interpolate(a, b, 0.25), sk.interpolate(a, b, [0.25])[0])


def test_the_line_is_a_line_and_near_parallel_latents_meet_it() -> None:
    a = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    b = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(sk.interpolate(a, b, 0.3, "linear"), 0.7 * a + 0.3 * b)
    near = a * (1 + 1e-9)
    assert torch.allclose(sk.interpolate(a, near, 0.5), a, rtol=1e-8)
    assert torch.allclose(sk.interpolate(a, a, [0.0, 0.5, 1.0]), a.expand(3, 3, 4))
    assert torch.isfinite(sk.interpolate(torch.zeros_like(a), b, 0.5)).all()


def test_spherical_interpolation_of_gaussians_is_gaussian_half_way() -> None:
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(3000, 64, dtype=torch.float64, generator=generator) for _ in range(2))
    middle = sk.interpolate(a, b, 0.5)
    # ‖·‖² of a 64-dimensional normal has mean 64; on the line it would be 32
    assert float(middle.square().sum(1).mean()) == pytest.approx(64.0, abs=1.0)
    assert float(sk.interpolate(a, b, 0.5, "linear").square().sum(1).mean()) == pytest.approx(32.0, abs=1.0)
    assert sk.interpolate(a.float(), b.float(), 0.5).dtype == torch.float32


def test_bad_arguments_are_named() -> None:
    process, score, x = sk.VP(), LAW.score(sk.VP()), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="temperature"):
        sk.decode(process, score, x, temperature=0.0, **TIGHT)
    with pytest.raises(ValueError, match="t_min < t_max"):
        sk.encode(process, score, x, t_min=1.0, t_max=0.5, **TIGHT)
    with pytest.raises(ValueError, match=r"end: expected the shape of start, \(2, 3\)"):
        sk.interpolate(x, torch.zeros(2, 4), 0.5)
    with pytest.raises(ValueError, match="'linear' or 'spherical'"):
        sk.interpolate(x, x, 0.5, "cubic")
    with pytest.raises(ValueError, match="number"):
        sk.interpolate(x, x, torch.zeros(2, 2))
    assert math.isfinite(float(sk.interpolate(x, x, 0.5).sum()))
