import math

import pytest
import torch

from sdekit.sdes.diffusion import VE, VP
from sdekit_generative.losses import DenoisingLoss, SlicedLoss, UniformTime, stratified


class Linear(torch.nn.Module):
    """ε̂ = a(t) x std/(1 + σ²): with a = 1 the score of data N(0, 1)."""

    def __init__(self, process, a):
        super().__init__()
        self.process, self.a = process, torch.nn.Parameter(torch.tensor(a))

    def noise(self, t, x):
        variance = self.process.scale(t) ** 2 + self.process.std(t) ** 2
        return self.a * (self.process.std(t) / variance).to(x.dtype) * x


def _batch(n):
    generator = torch.Generator().manual_seed(1)
    x0, z = (torch.randn(n, 1, 4, 4, generator=generator) for _ in range(2))
    signs = torch.randint(0, 2, x0.shape, generator=generator) * 2.0 - 1.0
    return x0, stratified(n, torch.tensor([0.5]))[torch.randperm(n, generator=generator)], z, signs


@pytest.mark.parametrize("process", [VP(t_min=1e-2), VE(0.05, 10.0)], ids=lambda p: type(p).__name__)
def test_sliced_and_denoising_objectives_differ_by_a_constant(process):
    """Both are std² ‖ŝ − ∇ log p‖² plus something that does not depend on the model."""
    batch = _batch(20_000)
    gaps = []
    for a in (0.6, 1.0, 1.3):
        model = Linear(process, a)
        sliced = SlicedLoss(times=UniformTime())(model, *batch).double()
        denoising = DenoisingLoss(times=UniformTime())(model, *batch).double()
        gaps.append((sliced - denoising).detach())
    for gap in gaps[1:]:
        difference = gap - gaps[0]
        assert abs(float(difference.mean())) < 4 * float(difference.std()) / math.sqrt(len(difference))


def test_its_gradient_vanishes_at_the_true_score():
    model = Linear(VP(t_min=1e-2), 1.0)
    losses = SlicedLoss(times=UniformTime())(model, *_batch(20_000))
    losses.mean().backward()
    at_truth = abs(float(model.a.grad))
    other = Linear(VP(t_min=1e-2), 0.7)
    SlicedLoss(times=UniformTime())(other, *_batch(20_000)).mean().backward()
    assert float(other.a.grad) < 0
    assert at_truth < 0.05 * abs(float(other.a.grad))


def test_it_can_be_evaluated_without_a_gradient():
    model = Linear(VP(t_min=1e-2), 1.0)
    with torch.no_grad():
        values = SlicedLoss()(model, *_batch(4))
    assert not values.requires_grad
