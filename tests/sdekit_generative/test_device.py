"""What keeps a device waiting: a step of a sampler neither reads a number back from it nor copies one to it.

The meta device stands for an accelerator. It computes nothing, but its tensors meet those of the CPU by the same rules.
"""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import sdekit as sk
from sdekit.protocols import Increment, Span
from sdekit.solvers import SAMPLERS
from sdekit_generative.data import DataRange
from sdekit_generative.model import EDMPreconditioning, Predict, PredictNoise, PredictVelocity, ScoreModel
from sdekit_generative.samplers import PC, Fast

DEVICE = torch.device("meta")


class Waits(TorchDispatchMode):
    """Raises where a number is read back, or a tensor changes its device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        held = [a for a in args if isinstance(a, torch.Tensor)]
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            assert held[0].device != DEVICE, "a number was read back"
        if name in ("_to_copy", "copy_") and held:
            devices = {t.device for t in held} | {found.device}
            assert len(devices) == 1, "a tensor was copied between devices"
        return found


class Nothing:
    """Draws on the device."""

    def normal(self, purpose, step, shape, dtype, device, part=0):
        return torch.empty(shape, dtype=dtype, device=device)

    uniform = sign = normal


class Cheap(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(1, device=DEVICE), requires_grad=False)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        assert c.device == x.device == DEVICE
        assert c.shape == x.shape[:1]
        assert c.dtype is torch.float32
        return x * self.weight * c[:, None, None, None]


PARAMETRISATIONS = [
    PredictNoise(),
    PredictVelocity(),
    EDMPreconditioning(),
    Predict("v", given="time", factor=999.0),
    Predict("denoised", given="sigma", scaled=True),
]


def _model(parametrisation: Any, process: Any) -> ScoreModel:
    return ScoreModel(Cheap(), process, parametrisation, DataRange(), (3, 8, 8), 256)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS, ids=repr)
def test_the_score_is_found_without_waiting(parametrisation):
    model = _model(parametrisation, sk.VP())
    x, t = torch.empty(4, 3, 8, 8, device=DEVICE), torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad(), Waits():
        score = model(t, x)
    assert score.shape == x.shape
    assert score.dtype is torch.float32


@pytest.mark.parametrize("process", [sk.VP(), sk.VE(), sk.SubVP()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("sampler", [PC(), PC(corrections=0), *map(Fast, SAMPLERS)], ids=repr)
def test_steps_are_made_without_waiting(sampler, process):
    route = sampler.route(_model(PredictVelocity(), process))
    x, solver = torch.empty(4, 3, 8, 8, device=DEVICE), route.solver
    times = torch.linspace(route.t0, 0.95, 6, dtype=torch.float64)
    with torch.no_grad(), Waits():
        state = solver.init(route.equation, times[0], x)
        for i in range(5):
            span = Span(times[i], times[i + 1], float(times[i + 1] - times[i]), i, Nothing())
            dw = None if route.equation.noise is sk.Noise.NONE else Increment(torch.empty_like(x))
            step = solver.step(route.equation, span, x, dw, state)
            x, state = step.x, step.state
    assert x.device == DEVICE
    assert x.dtype is torch.float32
