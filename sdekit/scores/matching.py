"""Score matching as plain functions: losses `(B,)` whose minimum over all s is the score of the law that x is drawn from.

    implicit    tr ∂s/∂x + ½ ‖s‖²                                 needs samples only
    sliced      E_v [vᵀ (∂s/∂x) v] + ½ ‖s‖²                        the same by random directions v, E[v vᵀ] = I
    denoising   ½ ‖w (s(t, x) − ∇ log p(x(t) = x | x(0)))‖²        needs the kernel, known for linear SDEs

The first two differ from ½ ‖s − ∇ log p‖² by a constant in expectation, the third from ½ ‖w (s − ∇ log p_t)‖². Diffusions
that are not affine have no kernel in closed form: their scores are learned by the first two, on paths of `solve`.

Notation: t 0-d or `(B, 1, …, 1)`; x `(B, *shape)`; a loss keeps its graph, take its mean.

Reference: Hyvärinen (2005), JMLR 6, theorem 1; Song, Garg, Shi, Ermon (2019), arXiv 1905.07088, equations 7 and 8;
Vincent (2011), Neural Computation 23(7), equation 11.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..arguments import check_has, check_integer, check_like, check_state
from ..protocols import Score, match, time_beside
from ..random import Draws, as_draws
from .divergence import Exact, Hutchinson, draw_probes


def implicit_score_matching(score: Score, t: Tensor, x: Tensor) -> Tensor:
    """`tr ∂s/∂x + ½ ‖s‖²`, `(B,)`, with the exact trace: D vector–Jacobian products.

    Raises ValueError where the score has no gradient with respect to x.
    """
    check_state("x", x)
    value, trace = Exact()(lambda y: score(t, y), x)
    return trace[0] + 0.5 * _square(value)


def sliced_score_matching(
    score: Score,
    t: Tensor,
    x: Tensor,
    *,
    projections: int = 1,
    kind: str = "rademacher",
    reduced: bool = True,
    seed: int | Draws = 0,
    first: int = 0,
) -> Tensor:
    """`vᵀ (∂s/∂x) v + ½ ‖s‖²` averaged over random directions v, `(B,)`: one vector–Jacobian product each.

    projections: how many directions a sample.  kind: "rademacher", "gaussian" or "spherical".
    reduced: ‖s‖² as it is; False puts (vᵀ s)² in its place, which has the same mean and more spread.
    seed: of the directions, sample i's depend on (seed, first + i) only; give another one each time in training.

    Raises ValueError where the score has no gradient with respect to x, or for a kind that is none.
    """
    check_integer("projections", projections, 1)
    check_state("x", x)
    estimator = Hutchinson(projections, kind)
    directions = draw_probes(as_draws(seed, first), x, kind, 0, projections)
    value, traces = estimator(lambda y: score(t, y), x, directions)
    if reduced:
        return traces.mean(0) + 0.5 * _square(value)
    along = (directions * value).flatten(2).sum(2)
    return (traces + 0.5 * along.square()).mean(0)


def denoising_score_matching(process: Any, score: Score, t: Tensor, data: Tensor, noise: Tensor) -> Tensor:
    """`½ ‖std s(t, x) + z‖²` at x = s(t) x₀ + std z, `(B,)`: every noise level has the same weight a dimension.

    process: affine, such as VP().  data: x₀.  noise: z, standard normals shaped like data. Times the factor (g/std)² it
    is the weight that bounds the likelihood (Song et al. 2021, arXiv 2101.09258, theorem 1).

    Raises TypeError for a process without s and std; ValueError where data and noise differ in shape.
    """
    check_has("process", process, ("scale", "std"), "an affine process such as VP()")
    check_state("data", data)
    check_like("noise", noise, "data", data)
    time = time_beside(t, data)
    std = match(process.std(time), data)
    x = match(process.scale(time), data) * data + std * noise
    return 0.5 * _square(std * score(t, x) + noise)


def score_regression(score: Score, t: Tensor, x: Tensor, target: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """`½ w² ‖s(t, x) − target‖²`, `(B,)`: denoising for any kernel, with target = ∇ₓ log p(x(t) = x | x(0)).

    weight: w, a number, 0-d or `(B, 1, …, 1)`.

    Raises ValueError where x and target differ in shape.
    """
    check_state("x", x)
    check_like("target", target, "x", x)
    return 0.5 * _square(match(time_beside(weight, x, "weight"), x) * (score(t, x) - target))


def _square(v: Tensor) -> Tensor:
    return v.flatten(1).square().sum(1)
