"""Every parametrization gives every other, checked against the exact denoiser and noise of a mixture."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit.sdes.discrete import DDPM, SMLD

KINDS = [
    sk.PredictsScore(),
    sk.PredictsNoise(),
    sk.PredictsDenoiser(),
    sk.PredictsFlow(),
    sk.PredictsVelocity(),
    sk.PredictsF(0.5),
    sk.PredictsF(1.3),
]
PROCESSES = [sk.VE(), sk.VP(), sk.SubVP(), sk.EDM(), sk.Cosine(), sk.RectifiedFlow(), SMLD(), DDPM()]
MEANS = torch.tensor([[1.0, -0.5, 0.2], [-0.7, 0.3, 0.9]], dtype=torch.float64)
LAW = sk.GaussianMixture(MEANS, 0.4)


def by_definition(process, kind, t: Tensor, denoised: Tensor, noise: Tensor) -> Tensor:
    """Each prediction as the formula of its paper has it, from D and ε."""
    s, std = process.scale(t), process.std(t)
    sigma = process.sigma(t)
    if isinstance(kind, sk.PredictsScore):
        return -noise / std
    if isinstance(kind, sk.PredictsNoise):
        return noise
    if isinstance(kind, sk.PredictsDenoiser):
        return denoised
    if isinstance(kind, sk.PredictsFlow):
        x = s * denoised + std * noise
        return process.drift(t, x) + 0.5 * process.diffusion(t, x) ** 2 * noise / std
    if isinstance(kind, sk.PredictsVelocity):
        return (s * noise - std * denoised) / (s**2 + std**2) ** 0.5
    c = kind.sigma_data
    clean = denoised + sigma * noise  # x/s
    return (denoised - c**2 / (c**2 + sigma**2) * clean) * (c**2 + sigma**2) ** 0.5 / (c * sigma)


def exact(process, kind, t: Tensor, x: Tensor) -> Tensor:
    noise = -process.std(t) * LAW.score(process)(t, x)
    return by_definition(process, kind, t, LAW.denoiser(process)(t, x), noise)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_every_prediction_gives_every_other(process) -> None:
    for share in (0.05, 0.5, 0.9):
        t = torch.tensor(process.t_min + share * (process.t_max - process.t_min), dtype=torch.float64)
        x = LAW.at(process, t).sample(5, seed=1)
        values = [exact(process, kind, t, x) for kind in KINDS]
        for (given, a), (wanted, b) in itertools.product(zip(KINDS, values, strict=True), repeat=2):
            found = sk.convert_prediction(process, t, x, a, given, wanted)
            assert torch.allclose(found, b, rtol=1e-9, atol=1e-9 * float(b.abs().max())), (given, wanted)


def test_each_sample_may_have_a_time_of_its_own_and_images_keep_their_dtype() -> None:
    process = sk.VP()
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x, value = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.ones(3, 2, 4, 4)
    for given, wanted in itertools.product(KINDS, repeat=2):
        many = sk.convert_prediction(process, t.reshape(3, 1, 1, 1), x, value, given, wanted)
        alone = [sk.convert_prediction(process, t[i], x[i : i + 1], value[i : i + 1], given, wanted) for i in range(3)]
        assert many.dtype == torch.float32
        assert torch.allclose(many, torch.cat(alone), rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != sk.PredictsDenoiser()], ids=lambda k: type(k).__name__)
@pytest.mark.parametrize("share", [1e-3, 0.3, 1.0])
def test_no_digits_are_lost_on_the_way_to_the_score(kind, share: float) -> None:
    # a float32 prediction, rounded once, gives a float32 score with an error of a few roundings of its parts
    process = sk.VE()
    t = torch.tensor(process.t_min + share * (process.t_max - process.t_min), dtype=torch.float64)
    x = LAW.at(process, t).sample(64, seed=2).float()
    predicted = exact(process, kind, t, x.double()).float()
    score = sk.convert_prediction(process, t, x, predicted, kind, sk.PredictsScore()).double()
    # the parts that make the score up, each with its own rounding
    parts = LAW.score(process)(t, x.double()).abs() + x.double().abs() / (process.std(t) ** 2 + 0.25)
    assert float(((score - LAW.score(process)(t, x.double())).abs() / parts).max()) < 2e-6


def test_a_detour_over_the_denoiser_would_lose_what_the_direct_way_keeps() -> None:
    process, t = sk.VE(), torch.tensor(0.01, dtype=torch.float64)
    x = LAW.at(process, t).sample(64, seed=2).float()
    truth = LAW.score(process)(t, x.double())
    noise = exact(process, sk.PredictsNoise(), t, x.double()).float()
    direct = sk.convert_prediction(process, t, x, noise, sk.PredictsNoise(), sk.PredictsScore())
    data = sk.convert_prediction(process, t, x, noise, sk.PredictsNoise(), sk.PredictsDenoiser())
    detour = sk.convert_prediction(process, t, x, data, sk.PredictsDenoiser(), sk.PredictsScore())
    lost = [float((v.double() - truth).abs().mean()) for v in (direct, detour)]
    assert lost[0] < 1e-5
    assert lost[1] > 100 * lost[0]


def test_a_model_of_the_flow_samples_as_its_score_does() -> None:
    process = sk.RectifiedFlow()
    calls = []

    def flow(t: Tensor, x: Tensor) -> Tensor:
        calls.append(1)
        return exact(process, sk.PredictsFlow(), t, x)

    x = process.prior_sample((6, 3), seed=0, dtype=torch.float64)
    ends = []
    for score in (sk.as_score(process, flow, sk.PredictsFlow()), LAW.score(process)):
        sol = sk.solve(
            sk.probability_flow(process, score),
            x,
            process.t_max,
            process.t_min,
            solver=sk.DPMSolverPP(2),
            steps=sk.log_snr_grid(process, 10),
        )
        ends.append(sol.x)
    assert torch.allclose(*ends, rtol=1e-9, atol=1e-9)
    assert len(calls) == 10


def test_bad_arguments_are_named() -> None:
    process, x = sk.VP(), torch.zeros(2, 3)
    with pytest.raises(TypeError, match="PredictsNoise"):
        sk.as_score(process, lambda t, x: x, "noise")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the class PredictsNoise"):
        sk.as_score(process, lambda t, x: x, sk.PredictsNoise)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="affine process"):
        sk.as_score(sk.CIR(), lambda t, x: x, sk.PredictsNoise())
    with pytest.raises(TypeError, match="function"):
        sk.as_score(process, 3, sk.PredictsNoise())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"value: expected the shape of x, \(2, 3\)"):
        sk.convert_prediction(process, 0.5, x, torch.zeros(2, 1), sk.PredictsNoise(), sk.PredictsScore())
    with pytest.raises(ValueError, match="sigma_data"):
        sk.PredictsF(0.0)
