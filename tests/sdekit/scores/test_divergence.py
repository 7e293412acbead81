"""Divergences against known Jacobians: exact ones to rounding, estimates within their own standard errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sdekit.random import KeyedDraws
from sdekit.scores import divergence as module
from sdekit.scores.divergence import Exact, Hutchinson, HutchPlusPlus, Pullback

D = 12
KINDS = ["rademacher", "gaussian", "spherical"]


def matrix(seed: int = 0, size: int = D) -> Tensor:
    return torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def linear(a: Tensor):
    """V = A x on flattened samples of any shape, so that J = A everywhere."""
    return lambda x: (x.flatten(1) @ a.T).reshape(x.shape)


def curved(x: Tensor) -> Tensor:
    """A field that mixes all entries of a sample and no samples."""
    y = x.flatten(1)
    return (torch.sin(y) * y.square().sum(1, keepdim=True) + torch.cos(y.roll(1, 1))).reshape(x.shape)


def curved_divergence(x: Tensor) -> Tensor:
    y = x.flatten(1)
    return (torch.cos(y) * y.square().sum(1, keepdim=True) + 2 * y * torch.sin(y)).sum(1)


def points(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("budget", [1, 100, 1 << 18])
@pytest.mark.parametrize("shape", [(D,), (3, 2, 2)])
def test_exact_is_exact_whatever_is_done_at_once(shape: tuple[int, ...], budget: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", budget)
    x = points(4, *shape)
    with torch.no_grad():
        value, found = Exact()(curved, x)
    assert torch.equal(value, curved(x))
    assert not value.requires_grad
    assert torch.allclose(found, curved_divergence(x)[None], rtol=1e-13)


@pytest.mark.parametrize("budget", [1, 1 << 18])
@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_gives_its_quadratic_form(kind: str, budget: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", budget)
    a, x, estimator = matrix(), points(3, D), Hutchinson(5, kind)
    probes = estimator.draw(KeyedDraws(1), x)
    _, found = estimator(linear(a), x, probes)
    assert torch.allclose(found, torch.einsum("pbi,ij,pbj->pb", probes, a, probes))


@pytest.mark.parametrize(
    "estimator", [*(Hutchinson(40, k) for k in KINDS), *(HutchPlusPlus(40, 3, k) for k in KINDS)], ids=str
)
def test_estimates_are_unbiased_and_their_spread_tells_the_error(estimator) -> None:
    a, n = matrix(2), 250
    x = points(n, D)
    _, found = estimator(linear(a), x, estimator.draw(KeyedDraws(3), x))
    z = (found.mean(0) - a.trace()) / (found.std(0) / math.sqrt(40))
    assert abs(z.mean()) < 4.0 / math.sqrt(n)
    assert 0.85 < z.std() < 1.18


def test_each_kind_is_exact_where_it_is_said_to_be() -> None:
    x, diagonal = points(3, D), torch.linspace(-2, 1, D, dtype=torch.float64)
    for kind, a in (("rademacher", torch.diag(diagonal)), ("spherical", -1.7 * torch.eye(D, dtype=torch.float64))):
        _, found = (e := Hutchinson(2, kind))(linear(a), x, e.draw(KeyedDraws(0), x))
        assert torch.allclose(found, a.trace().expand(2, 3), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_diagonal_takes_its_spread_away_and_no_bias_is_left(kind: str) -> None:
    diagonal = torch.linspace(-3, 3, D, dtype=torch.float64)
    x, estimator = points(200, D), Hutchinson(10, kind)
    probes = estimator.draw(KeyedDraws(0), x)
    _, found = estimator(linear(torch.diag(diagonal)), x, probes, diagonal.expand_as(x))
    assert torch.allclose(found, torch.zeros(10, 200, dtype=torch.float64) + diagonal.sum(), atol=1e-12)
    a = matrix(3)
    _, off = estimator(linear(a), x, probes, 0.3 * diagonal.expand_as(x))  # a wrong diagonal
    assert abs(off.mean() - a.trace()) < 4.0 * off.mean(0).std() / math.sqrt(200)


def test_hutch_plus_plus_is_exact_for_as_many_directions_as_the_rank() -> None:
    low_rank = matrix(4)[:, :3] @ matrix(5)[:3]
    x, plus, plain = points(6, D), HutchPlusPlus(2, sketch=3), Hutchinson(8)
    _, found = plus(linear(low_rank), x, plus.draw(KeyedDraws(0), x))
    assert torch.allclose(found, low_rank.trace().expand(2, 6), rtol=1e-9)
    _, rough = plain(linear(low_rank), x, plain.draw(KeyedDraws(0), x))
    assert (rough.mean(0) - low_rank.trace()).abs().max() > 0.1
    every = HutchPlusPlus(2, sketch=D + 3)
    _, all_of_it = every(linear(matrix(6)), x, every.draw(KeyedDraws(0), x))
    assert torch.allclose(all_of_it, matrix(6).trace().expand(2, 6), rtol=1e-9)


def test_hutch_plus_plus_beats_as_many_plain_probes_on_a_decaying_spectrum() -> None:
    q = torch.linalg.qr(matrix(7, 48)).Q
    a = q @ torch.diag(torch.arange(1.0, 49.0, dtype=torch.float64) ** -1.5) @ q.T
    x = points(300, 48)
    plus, plain = HutchPlusPlus(4, sketch=4), Hutchinson(12)
    errors = [
        (e(linear(a), x, e.draw(KeyedDraws(1), x))[1].mean(0) - a.trace()).square().mean().sqrt() for e in (plus, plain)
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("estimator", [Exact(), Hutchinson(3), HutchPlusPlus(3)], ids=str)
def test_one_evaluation_of_the_field_whatever_the_number_of_products(estimator) -> None:
    calls = 0

    def field(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return curved(x)

    x = points(4, D)
    estimator(field, x, estimator.draw(KeyedDraws(0), x))
    assert calls == 1


@pytest.mark.parametrize("estimator", [Exact(), Hutchinson(3, "spherical"), HutchPlusPlus(3)], ids=str)
def test_a_sample_has_its_divergence_whatever_batch_it_is_in(estimator) -> None:
    x = points(9, D)
    _, together = estimator(curved, x, estimator.draw(KeyedDraws(4), x))
    for i in (0, 5):
        one = x[i : i + 1]
        _, alone = estimator(curved, one, estimator.draw(KeyedDraws(4, first=i), one))
        assert torch.allclose(alone[:, 0], together[:, i], rtol=1e-12)
    spoiled = x.clone()
    spoiled[3] = math.nan
    _, rest = estimator(curved, spoiled, estimator.draw(KeyedDraws(4), x))
    keep = [i for i in range(9) if i != 3]
    assert torch.allclose(rest[:, keep], together[:, keep], rtol=1e-12)


def test_further_probes_go_on_where_the_first_ended() -> None:
    x = points(3, D)
    whole = Hutchinson(6).draw(KeyedDraws(2), x)
    assert torch.equal(Hutchinson(4).draw(KeyedDraws(2), x, start=2), whole[2:])


def test_losses_may_be_built_on_values_and_divergences() -> None:
    net = nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, D)).double()
    x = points(5, D)
    for estimator in (Exact(), Hutchinson(2), HutchPlusPlus(2)):
        value, found = estimator(net, x, estimator.draw(KeyedDraws(0), x))
        net.zero_grad()
        (found.sum() + value.square().sum()).backward()
        weight = net[0].weight
        assert isinstance(weight, Tensor)
        assert weight.grad is not None
        assert weight.grad.abs().max() > 0


class _Unmapped(torch.autograd.Function):
    """x³ with a backward pass that refuses to be mapped over vectors."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.from_numpy(3 * x.detach().numpy() ** 2 * grads[0].detach().numpy())


def test_operations_that_cannot_be_mapped_are_done_one_by_one() -> None:
    x = points(4, D)
    with torch.no_grad():
        _, found = Exact()(_Unmapped.apply, x)  # type: ignore[arg-type]
    assert torch.allclose(found[0], 3 * x.square().sum(1))


def test_float32_stays_float32() -> None:
    x = points(4, 3, 2, 2, dtype=torch.float32)
    for estimator in (Exact(), Hutchinson(2, "spherical"), HutchPlusPlus(2)):
        value, found = estimator(curved, x, estimator.draw(KeyedDraws(0), x))
        assert value.dtype == found.dtype == torch.float32
        assert found.shape == (estimator.probes, 4)


def test_a_field_without_gradient_is_an_error_that_says_so() -> None:
    for field in (lambda x: curved(x).detach(), lambda x: torch.ones_like(x)):
        with pytest.raises(ValueError, match="no gradient with respect to x"):
            Pullback(field, points(2, D))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hutchinson(0), "Hutchinson: probes must be an integer of 1 or more, got 0"),
        (lambda: Hutchinson(True), "got True"),
        (lambda: Hutchinson(2, "normal"), "kind is 'rademacher', 'gaussian' or 'spherical', got 'normal'"),
        (lambda: HutchPlusPlus(4, sketch=0), "HutchPlusPlus: sketch must be an integer"),
    ],
)
def test_bad_arguments_are_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="control is a function"):
        Hutchinson(2, control=3.0)  # type: ignore[arg-type]
