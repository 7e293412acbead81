"""What solvers have in common besides the contract itself: having no memory, and the orders that several reach.

All orders are measured: tests/sdekit/solvers/test_orders.py, and `python -m benchmarks.convergence`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..protocols import Noise, Order

ONE = Order(1.0, 1.0)
HALF = Order(0.5, 1.0)

EULER = {
    Noise.NONE: ONE,
    Noise.ADDITIVE: ONE,
    Noise.DIAGONAL: HALF,
    Noise.SCALAR: HALF,
    Noise.COMMUTATIVE: HALF,
    Noise.GENERAL: HALF,
}
"""Of methods that take the noise as constant over a step."""

COMMUTING = {
    Noise.NONE: ONE,
    Noise.ADDITIVE: ONE,
    Noise.DIAGONAL: ONE,
    Noise.SCALAR: ONE,
    Noise.COMMUTATIVE: ONE,
}
"""Of methods that follow how the noise changes along W, which without Lévy areas is all where columns commute."""


class Memoryless:
    """A method that carries nothing from one step to the next."""

    def init(self, sde: Any, t: Tensor, x: Tensor) -> Any:
        return None
