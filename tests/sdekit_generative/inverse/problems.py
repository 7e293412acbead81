"""Laws of 4 × 4 images with exact scores, and routes from the prior to them."""

from __future__ import annotations

import torch

from sdekit.analytic import GaussianData, GaussianMixture
from sdekit.scores.reverse import reverse
from sdekit.sdes.diffusion import VP
from sdekit.solvers import DPMSolverPP
from sdekit.steps import angle_grid
from sdekit_generative.inverse import Measurement, exact_posterior, observe
from sdekit_generative.samplers import Route

SHAPE = (1, 4, 4)


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def smooth_covariance(variance=0.5, length=1.2):
    line = torch.arange(4.0, dtype=torch.float64)
    place = torch.cartesian_prod(line, line)
    square = (place[:, None] - place[None]).square().sum(-1)
    return variance * torch.exp(-0.5 * square / length**2) + 0.01 * torch.eye(16, dtype=torch.float64)


class Problem:
    """A prior, an operator and one observation of one image, with the exact posterior."""

    def __init__(self, operator, level=0.1, components=1, process=None, n=1, seed=5):
        self.process = VP() if process is None else process
        means = (
            0.8 * noise(components, *SHAPE, seed=2) if components > 1 else torch.zeros(1, *SHAPE, dtype=torch.float64)
        )
        variance = 0.5 if components == 1 else 0.15
        covs = smooth_covariance(variance).expand(components, 16, 16).contiguous()
        self.data = GaussianMixture(means, covs=covs) if components > 1 else GaussianData(means[0], cov=covs[0])
        self.images = self.data.sample(n, seed=seed)
        self.operator, self.level = operator, level
        self.y = observe(operator, self.images, level, seed=1)
        self.measurement = Measurement.of(operator, self.y, level, SHAPE)
        self.score = self.data.score(self.process)
        self._prior = (means, covs, torch.ones(components))

    def posterior(self, row=0):
        return exact_posterior(*self._prior, self.operator, self.y[row], self.level)

    def route(self, steps=60, solver=None, churn=1.0, denoise=True):
        grid = angle_grid(self.process, steps, sigma_data=0.7, t1=1e-3)
        equation = reverse(self.process, self.score, churn=churn)
        solver = DPMSolverPP(2) if solver is None else solver
        return Route(equation, solver, grid, self.process.t_max, 1e-3, denoise)
