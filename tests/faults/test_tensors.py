"""Every argument of every public function that takes a tensor, given sixteen kinds of other tensors.

The names come from `__all__` of both packages: a public name that is neither called here nor listed as taking no tensor
fails the test. By default each argument meets three of the kinds, dealt out in turn; all of them are slow.
"""

import math

import pytest
import torch

import sdekit as sk
import sdekit_generative as sg

from . import entries, generative_entries
from .tensors import KINDS, Entry, Kind, complaint

ALL = (*entries.ENTRIES, *generative_entries.ENTRIES)
DEALT = 3


def _report(found: list[str]) -> str:
    return f"{len(found)} tensors were badly answered:\n" + "\n".join(found)


def _examine(entry: Entry, kinds: tuple[Kind, ...]) -> list[str]:
    complaints = ((kind, complaint(entry, kind)) for kind in kinds)
    return [f"{entry.name} {kind.name}: {found}" for kind, found in complaints if found is not None]


@pytest.mark.parametrize(
    ("public", "module"), [(sk.__all__, entries), (sg.__all__, generative_entries)], ids=["sdekit", "sdekit_generative"]
)
def test_every_public_name_is_called_here_or_takes_no_tensor(public, module):
    called = {entry.owner for entry in module.ENTRIES}
    assert called & module.WITHOUT == set()
    assert set(public) - called - module.WITHOUT == set()
    assert module.WITHOUT - set(public) == set()


def test_other_tensors_give_the_right_numbers_or_an_error_that_names_the_argument():
    found = []
    for turn, entry in enumerate(ALL):
        kinds = tuple(KINDS[(DEALT * turn + k + turn // 16) % len(KINDS)] for k in range(DEALT))
        found += _examine(entry, kinds)
    assert not found, _report(found)


@pytest.mark.slow
@pytest.mark.parametrize("entry", ALL, ids=lambda entry: f"{entry.owner}-{entry.argument}")
def test_all_kinds_of_tensors(entry):
    found = _examine(entry, KINDS)
    assert not found, _report(found)


def test_bad_answers_are_noticed():
    def states():
        return torch.ones(2, 3)

    def refuse(x):
        raise ValueError("x: expected something else")

    kinds = {kind.name: kind for kind in KINDS}
    assert complaint(Entry("f", "x", refuse, states), kinds["list"]) is not None  # it was not raised by the packages
    assert "away" in complaint(Entry("f", "x", lambda x: x + (x.dtype == torch.int64), states), kinds["int64"])
    assert "hid a NaN" in complaint(Entry("f", "x", lambda x: x.nan_to_num(), states), kinds["NaN"])
    assert "not finite" in complaint(Entry("f", "x", lambda x: x.mean(), states), kinds["zero batch"])
    assert "AttributeError" in complaint(Entry("f", "x", lambda x: x.sum().mean(), states), kinds["list"])
    assert "meta" in complaint(Entry("f", "x", lambda x: x, states), kinds["meta device"])
    assert complaint(Entry("f", "x", lambda x: torch.as_tensor(x) * 2, states), kinds["list"]) is None
    unnamed = Entry("solve", "start", lambda x: sk.solve(
        sk.ODE(lambda t, x: -x), x, 0.0, 1.0, solver=sk.RK4(), steps=sk.FixedSteps(2)).x, states)  # fmt: skip
    assert "does not name start" in complaint(unnamed, kinds["bool"])


# --- what drift, diffusion and score may return -----------------------------------------------------------------------

WRONG = {
    "shape": lambda v: v[:, :1],
    "dtype": lambda v: v.double() if v.dtype == torch.float32 else v.float(),
    "None": lambda v: None,
    "tuple": lambda v: (v,),
    "number": lambda v: float(v.sum()),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("place", ["drift", "diffusion", "score"])
def test_what_a_function_returns_wrongly_is_said_of_that_function(place, what):
    spoil, x0 = WRONG[what], torch.ones(4, 3)
    if place == "score":
        sde = sk.reverse(sk.VP(), lambda t, x: spoil(-x))
    else:
        drift = (lambda t, x: spoil(-x)) if place == "drift" else lambda t, x: -x
        diffusion = (
            (lambda t, x: spoil(0.1 * torch.ones_like(x)))
            if place == "diffusion"
            else lambda t, x: 0.1 * torch.ones_like(x)
        )
        sde = sk.ItoSDE(drift, diffusion, sk.Noise.ADDITIVE, sk.Direction.BACKWARD)
    if place == "diffusion" and what == "shape":  # one number for all components is a shape that it may have
        x = sk.solve(sde, x0, 0.9, 0.1, solver=sk.EulerMaruyama(), steps=sk.FixedSteps(3)).x
        whole = sk.ItoSDE(
            lambda t, x: -x, lambda t, x: 0.1 * torch.ones_like(x), sk.Noise.ADDITIVE, sk.Direction.BACKWARD
        )
        assert torch.equal(x, sk.solve(whole, x0, 0.9, 0.1, solver=sk.EulerMaruyama(), steps=sk.FixedSteps(3)).x)
        return
    for solver in (sk.EulerMaruyama(), sk.SRA1()):
        with pytest.raises((TypeError, ValueError), match=rf"{place}\(t, x\).*(returned|must return)"):
            sk.solve(sde, x0, 0.9, 0.1, solver=solver, steps=sk.FixedSteps(3))


@pytest.mark.parametrize("kind", ["float64 beside float32", "float32 beside float64"])
def test_times_of_another_precision_leave_the_state_s(kind):
    dtype, other = (torch.float32, torch.float64) if kind.startswith("float64") else (torch.float64, torch.float32)
    x0, ends = torch.ones(4, 3, dtype=dtype), torch.full((4,), 0.5, dtype=other)
    seen = set()

    def drift(t, x):
        seen.add((t.dtype, x.dtype))
        return -t * x

    x = sk.solve(sk.ODE(drift), x0, torch.zeros(4, dtype=other), ends, solver=sk.RK4(), steps=sk.FixedSteps(8)).x
    assert x.dtype == dtype
    assert seen == {(dtype, dtype)}
    torch.testing.assert_close(x, torch.full_like(x0, math.exp(-0.125)), rtol=1e-6, atol=0)
