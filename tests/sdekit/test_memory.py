"""What a solve holds on to does not grow with its steps."""

import gc
import weakref

import pytest
import torch

import sdekit as sk


class _Saved:
    """A tensor that autograd keeps for the way back."""

    def __init__(self, tensor):
        self.tensor = tensor


class _Ledger:
    """Counts the numbers that autograd holds at a time."""

    def __init__(self):
        self.held = self.peak = 0

    def pack(self, tensor):
        saved = _Saved(tensor.detach())  # an output that held its own graph would never be let go
        self.held += tensor.numel()
        self.peak = max(self.peak, self.held)
        weakref.finalize(saved, self._drop, tensor.numel())
        return saved

    def _drop(self, count):
        self.held -= count

    def measure(self, run):
        gc.collect()
        with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda saved: saved.tensor):
            run()
        return self.peak


class _Score(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 4)).double()

    def forward(self, t, x):
        return self.net(x) - x


def test_likelihood_with_probes_keeps_one_forward_pass():
    torch.manual_seed(0)
    process, score = sk.VP(), _Score()
    x = torch.randn(8, 4, dtype=torch.float64)
    once = _Ledger().measure(lambda: score(torch.tensor(0.5), x.clone().requires_grad_()))

    def likelihood(steps):
        arguments = {
            "solver": sk.RK4(),
            "steps": sk.FixedSteps(steps),
            "divergence": sk.Hutchinson(probes=1),
            "seed": 0,
        }

        def run():
            with torch.no_grad():  # as densities are asked for; else the way back through all steps is kept
                sk.log_likelihood(process, score, x, **arguments)

        return run

    few, many = (_Ledger().measure(likelihood(steps)) for steps in (4, 40))
    assert many == few
    assert few <= 3 * once  # the network's activations, and some tensors of the flow around it


@pytest.mark.parametrize("save", [None, sk.SaveAt(times=[0.5, 1.0])])
def test_a_solve_without_gradients_keeps_no_states_but_those_it_saves(save):
    alive = weakref.WeakSet()

    class Spy:
        def __init__(self, tensor):
            self.tensor = tensor

    peak = 0

    def drift(t, x):
        nonlocal peak
        spy = Spy(x)
        x._spy = spy  # lives as long as the state does
        alive.add(spy)
        peak = max(peak, len(alive))
        return -x

    def most(steps):
        nonlocal peak
        peak = 0
        sk.solve(sk.ODE(drift), torch.ones(3, 2), 0.0, 1.0, solver=sk.Euler(), steps=sk.FixedSteps(steps), save=save)
        return peak

    gc.collect()
    gc.disable()  # what stays, stays by a reference and not by a cycle that is not yet collected
    try:
        assert most(200) <= most(20) + 1
    finally:
        gc.enable()
