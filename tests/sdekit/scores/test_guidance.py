"""Guided scores against the exact scores of what they are to sample."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sdekit as sk

PROCESS = sk.VP()
MEANS = torch.tensor([[-1.5, 0.0], [1.0, 1.0], [1.5, -1.0]], dtype=torch.float64)
WHOLE = sk.GaussianMixture(MEANS, 0.3, weights=torch.tensor([0.5, 0.3, 0.2]))
CLASS = sk.GaussianMixture(MEANS[1:], 0.3, weights=torch.tensor([0.6, 0.4]))  # components 1 and 2
T = torch.tensor(0.4, dtype=torch.float64)
X = WHOLE.at(PROCESS, T).sample(20, seed=3)


def log_prob(t: Tensor, x: Tensor) -> Tensor:
    """The exact classifier: log p(component 1 or 2 | x(t) = x)."""
    return WHOLE.responsibilities(x, PROCESS, t)[:, 1:].sum(1).log()


def test_an_exact_classifier_makes_the_conditional_score() -> None:
    guided = sk.ClassifierGuidance(WHOLE.score(PROCESS), log_prob)
    with torch.no_grad():
        assert torch.allclose(guided(T, X), CLASS.score(PROCESS)(T, X), rtol=1e-9, atol=1e-9)


def test_the_weight_of_classifier_free_guidance_is_that_of_the_conditional_model() -> None:
    a, b = CLASS.score(PROCESS), WHOLE.score(PROCESS)
    for weight in (0.0, 0.3, 1.0, 3.0):
        found = sk.classifier_free(a, b, weight)(T, X)
        assert torch.allclose(found, weight * a(T, X) + (1 - weight) * b(T, X), rtol=1e-12, atol=1e-12)


def test_classifier_free_and_classifier_guidance_are_one_and_the_same_for_exact_models() -> None:
    free = sk.classifier_free(CLASS.score(PROCESS), WHOLE.score(PROCESS), 2.5)
    by_classifier = sk.ClassifierGuidance(WHOLE.score(PROCESS), log_prob, weight=2.5)
    assert torch.allclose(free(T, X), by_classifier(T, X), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.05, 0.2, 1.0, 3.0, 10.0])
def test_guidance_acts_inside_its_interval_of_noise_levels_only(sigma: float) -> None:
    a, b = CLASS.score(PROCESS), WHOLE.score(PROCESS)
    interval = sk.SigmaInterval(PROCESS, 0.2, 3.0)
    t = PROCESS.time(torch.tensor(sigma * (1 + 1e-9 * (1 if sigma < 1 else -1)), dtype=torch.float64).log())
    inside = 0.2 <= sigma <= 3.0
    free = sk.autoguidance(a, b, 2.0, interval)
    assert torch.allclose(free(t, X), 2 * a(t, X) - b(t, X) if inside else a(t, X), rtol=1e-12, atol=1e-12)
    assert free.calls_at(t) == 1 + inside
    guided = sk.ClassifierGuidance(b, log_prob, 1.0, interval)
    assert torch.allclose(guided(t, X), (a if inside else b)(t, X), rtol=1e-8, atol=1e-8)
    assert guided.calls_at(t) == 1 + inside


def test_samples_at_times_of_their_own_are_inside_or_outside_each_for_itself() -> None:
    free = sk.classifier_free(CLASS.score(PROCESS), WHOLE.score(PROCESS), 3.0, sk.SigmaInterval(PROCESS, 0.2, 2.0))
    t = torch.linspace(0.01, 0.99, len(X), dtype=torch.float64)
    together = free(t.reshape(-1, 1), X)
    alone = torch.cat([free(t[i], X[i : i + 1]) for i in range(len(X))])
    assert torch.allclose(together, alone, rtol=1e-12, atol=1e-12)


def test_a_solve_counts_every_model_that_was_asked() -> None:
    asked = {"a": 0, "b": 0}

    def counting(name: str, score):
        def call(t: Tensor, x: Tensor) -> Tensor:
            asked[name] += 1
            return score(t, x)

        return call

    free = sk.classifier_free(
        counting("a", CLASS.score(PROCESS)),
        counting("b", WHOLE.score(PROCESS)),
        2.0,
        sk.SigmaInterval(PROCESS, 0.1, 5.0),
    )
    sol = sk.solve(
        sk.probability_flow(PROCESS, free),
        PROCESS.prior_sample((4, 2), seed=0, dtype=torch.float64),
        PROCESS.t_max,
        PROCESS.t_min,
        solver=sk.DPMSolverPP(2),
        steps=sk.log_snr_grid(PROCESS, 20),
    )
    assert asked["a"] == 20
    assert 0 < asked["b"] < 20
    assert sol.stats.model_calls == asked["a"] + asked["b"]
    assert (sol.stats.evaluations == sol.stats.model_calls).all()


def test_guidance_of_weight_one_samples_the_class() -> None:
    guided = sk.ClassifierGuidance(WHOLE.score(PROCESS), log_prob)
    n = 2000
    x = sk.solve(
        sk.reverse(PROCESS, guided),
        PROCESS.prior_sample((n, 2), seed=1, dtype=torch.float64),
        PROCESS.t_max,
        PROCESS.t_min,
        solver=sk.DPMSolverPP(2),
        steps=sk.log_snr_grid(PROCESS, 60),
    ).x
    share = WHOLE.responsibilities(x).argmax(1).bincount(minlength=3) / n
    assert float(share[0]) < 0.003
    assert float(share[1]) == pytest.approx(0.6, abs=4 * (0.24 / n) ** 0.5)


def test_a_guided_score_has_a_likelihood() -> None:
    guided = sk.ClassifierGuidance(WHOLE.score(PROCESS), log_prob)
    x = CLASS.at(PROCESS, PROCESS.t_min).sample(6, seed=4)
    options = {"solver": sk.Dopri5(), "steps": sk.Adaptive(rtol=1e-6, atol=1e-6)}
    found = sk.log_likelihood(PROCESS, guided, x, prior=CLASS.at(PROCESS, PROCESS.t_max), **options)
    assert torch.allclose(found.log_prob, CLASS.log_prob(x, PROCESS, PROCESS.t_min), atol=2e-4)


def test_energies_are_scores_under_no_grad_and_with_likelihoods() -> None:
    energy = lambda t, x: -WHOLE.log_prob(x, PROCESS, t)  # noqa: E731
    score = sk.EnergyScore(energy)
    with torch.no_grad():
        found = score(T, X)
    assert not found.requires_grad
    assert torch.allclose(found, WHOLE.score(PROCESS)(T, X), rtol=1e-9, atol=1e-9)
    x = WHOLE.at(PROCESS, PROCESS.t_min).sample(5, seed=4)
    ll = sk.log_likelihood(
        PROCESS,
        score,
        x,
        solver=sk.Dopri5(),
        steps=sk.Adaptive(rtol=1e-6, atol=1e-6),
        prior=WHOLE.at(PROCESS, PROCESS.t_max),
    )
    assert torch.allclose(ll.log_prob, WHOLE.log_prob(x, PROCESS, PROCESS.t_min), atol=2e-4)


def test_a_score_that_needs_gradients_where_there_are_none_is_told_what_to_do() -> None:
    def naive(t: Tensor, x: Tensor) -> Tensor:
        return torch.autograd.grad(WHOLE.log_prob(x, PROCESS, t).sum(), x)[0]

    x, steps = PROCESS.prior_sample((3, 2), seed=0, dtype=torch.float64), sk.log_snr_grid(PROCESS, 3)
    ends = (PROCESS.t_max, PROCESS.t_min)
    with torch.no_grad(), pytest.raises(ValueError, match=r"EnergyScore\(energy\) does that"):
        sk.solve(sk.probability_flow(PROCESS, naive), x, *ends, solver=sk.DDIM(), steps=steps)
    energy = sk.EnergyScore(lambda t, y: -WHOLE.log_prob(y, PROCESS, t))
    with torch.no_grad():
        found = sk.solve(sk.probability_flow(PROCESS, energy), x, *ends, solver=sk.DDIM(), steps=steps).x
    exact = sk.solve(sk.probability_flow(PROCESS, WHOLE.score(PROCESS)), x, *ends, solver=sk.DDIM(), steps=steps).x
    assert torch.allclose(found, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sk.EnergyScore(3), "energy is a function"),
        (lambda: sk.EnergyScore(lambda t, x: x)(T, X), r"shape \(20,\)"),
        (lambda: sk.EnergyScore(lambda t, x: x.detach().sum(1))(T, X), "no gradient"),
        (
            lambda: sk.ClassifierGuidance(WHOLE.score(PROCESS), log_prob, -1.0),
            "weight must be not negative|not negative",
        ),
        (lambda: sk.classifier_free(WHOLE.score(PROCESS), None, 1.0), "base is a function"),
        (lambda: sk.classifier_free(WHOLE.score(PROCESS), WHOLE.score(PROCESS), 1.0, (0.1, 2.0)), "SigmaInterval"),
        (lambda: sk.SigmaInterval(PROCESS, 2.0, 1.0), "low ≤ high"),
        (lambda: sk.SigmaInterval(sk.CIR(), 0.1, 1.0), "affine process"),
    ],
)
def test_bad_arguments_are_named(make, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()
