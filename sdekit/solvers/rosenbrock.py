"""A Rosenbrock method for stiff ordinary differential equations.

One step solves s linear systems with the matrix `I − γ h J`, J = ∂f/∂x at (t0, x); nothing is iterated:

    (I − γ h J) u_i = γ (h f(t0 + α_i h, x + Σ_j a_ij u_j) + Σ_j c_ij u_j + d_i h² ∂f/∂t),   x' = x + Σ m_i u_i

Reference: Hairer, Wanner (1996), "Solving Ordinary Differential Equations II", §IV.7, equation 7.25.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..protocols import SDE, Increment, Levy, Noise, Order, Span, Step
from .contract import Memoryless
from .jacobian import factorize, linearize
from .runge_kutta import combine, stage_time
from .tableaux import Row


@dataclass(frozen=True)
class RosenbrockTableau:
    """a, c: rows of the strictly lower triangles.  m: weights; the last stage is the error estimate.

    alpha: nodes.  d: weights of ∂f/∂t.  dense: rows of the dense output,
    `x(t0 + θh) = x + θ(x' − x) + θ(1 − θ)(q₀ + θ(q₁ + θ q₂))`, `q_k = Σ dense_ki u_i`.
    """

    gamma: float
    a: tuple[Row, ...]
    c: tuple[Row, ...]
    alpha: Row
    d: Row
    dense: tuple[Row, ...]

    @property
    def m(self) -> Row:
        """Weights of the new state: the last stage's argument, and the last stage itself."""
        return (*self.a[-1], 1.0)


_SIXTH = (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946)

RODAS5P = RosenbrockTableau(
    gamma=0.21193756319429014,
    a=(
        (),
        (3.0,),
        (2.849394379747939, 0.45842242204463923),
        (-6.954028509809101, 2.489845061869568, -10.358996098473584),
        (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
        _SIXTH,
        (*_SIXTH, 1.0),
        (*_SIXTH, 1.0, 1.0),
    ),
    c=(
        (),
        (-14.155112264123755,),
        (-17.97296035885952, -2.859693295451294),
        (147.12150275711716, -1.41221402718213, 71.68940251302358),
        (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
        (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
        (
            30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783, -19.097331116725623,
            -28.087943162872662,
        ),
        (
            37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047, -40.06618937091002,
            -54.66780262877968, -9.48861652309627,
        ),
    ),
    alpha=(0.0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1.0, 1.0, 1.0),
    d=(
        0.21193756319429014, -0.42387512638858027, -0.3384627126235924, 1.8046452872882734, 2.325825639765069,
        0.0, 0.0, 0.0,
    ),
    dense=(
        (
            25.948786856663858, -2.5579724845846235, 10.433815404888879, -2.3679251022685204, 0.524948541321073,
            1.1241088310450404, 0.4272876194431874, -0.17202221070155493,
        ),
        (
            -9.91568850695171, -0.9689944594115154, 3.0438037242978453, -24.495224566215796, 20.176138334709044,
            15.98066361424651, -6.789040303419874, -6.710236069923372,
        ),
        (
            11.419903575922262, 2.8879645146136994, 72.92137995996029, 80.12511834622643, -52.072871366152654,
            -59.78993625266729, -0.15582684282751913, 4.883087185713722,
        ),
    ),
)


@dataclass(frozen=True)
class Rodas5P(Memoryless):
    """Rodas5P 5(4) for stiff ODEs: order 5, L-stable, with error estimate and dense output of order 4.

    A step makes nine drift evaluations, one of them for the Jacobian `(B, D, D)`, and eight solves with one
    factorisation; every sample has its own. The drift must be differentiable by torch, in x and in t.
    Raises Incompatible for states of more than 4096 components.

    Reference: Steinebach (2023), BIT 63:27.
    """

    calculus = None
    levy = Levy.W
    error_order = 5.0
    orders = {Noise.NONE: Order(5.0, 5.0)}
    tableau: ClassVar[RosenbrockTableau] = RODAS5P

    def step(self, sde: SDE, span: Span, x: Tensor, dw: Increment | None, state: Any) -> Step:
        tableau, h, gamma = self.tableau, span.h, self.tableau.gamma
        f = sde.drift(span.t0, x)
        _, jacobian, time = linearize(sde, span.t0, x, timed=True, graph=f.requires_grad)
        assert time is not None
        factors = factorize(jacobian, h * gamma)
        drifting = time * h * h
        u: list[Tensor] = []
        y = x
        for a, c, alpha, d in zip(tableau.a, tableau.c, tableau.alpha, tableau.d, strict=True):
            if a:
                y = x + combine(a, u)
                f = sde.drift(stage_time(span, alpha), y)
            right = f * h + d * drifting if d else f * h
            u.append(factors.solve(gamma * (right + combine(c, u) if c else right)))
        new = y + u[-1]
        return Step(new, u[-1], interpolate=self._dense(x, new, u))

    def _dense(self, x: Tensor, new: Tensor, u: list[Tensor]) -> Callable[[Tensor], Tensor]:
        def interpolate(theta: Tensor) -> Tensor:
            theta = theta.to(x.dtype)
            q0, q1, q2 = (combine(row, u) for row in self.tableau.dense)
            return torch.lerp(x, new, theta) + theta * (1 - theta) * (q0 + theta * (q1 + theta * q2))

        return interpolate
