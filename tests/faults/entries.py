"""Every public function of sdekit that takes a tensor, ready to be called with another; and the names that take none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import sdekit as sk
from sdekit.solvers import ALL, SAMPLERS

from .broken import CASES, NOTHING, Fault
from .tensors import Entry

FIXED = sk.FixedSteps(4)
DECAY = sk.ODE(lambda t, x: torch.cos(x) - x)
NOISY = sk.ItoSDE(lambda t, x: -x, lambda t, x: 0.3 * torch.cos(x), sk.Noise.DIAGONAL)
ADDITIVE = sk.ItoSDE(lambda t, x: -x, lambda t, x: 0.3 * torch.ones_like(x), sk.Noise.ADDITIVE)


def score(t: Tensor, x: Tensor) -> Tensor:
    """Of a standard Gaussian, which VP leaves alone."""
    return -x


def energy(t: Tensor, x: Tensor) -> Tensor:
    """Of the same."""
    return 0.5 * x.square().flatten(1).sum(1)


def states() -> Tensor:
    """`(4, 3)`."""
    return torch.linspace(-0.9, 1.3, 12).reshape(4, 3)


def positive() -> Tensor:
    """`(4, 3)`, above zero."""
    return torch.linspace(0.3, 1.4, 12).reshape(4, 3)


def pairs() -> Tensor:
    """Positions and velocities `(4, 2, 3)`."""
    return torch.linspace(-0.9, 1.3, 24).reshape(4, 2, 3)


def moments_of_time() -> Tensor:
    """One a sample, `(4, 1)`."""
    return torch.tensor([[0.2], [0.4], [0.5], [0.8]])


def one_of_each() -> Tensor:
    """One a sample, `(4,)`."""
    return torch.tensor([0.25, 0.4, 0.5, 0.8])


def matrix() -> Tensor:
    """`(3, 3)`, stable and symmetric."""
    return torch.tensor([[1.0, 0.2, 0.0], [0.2, 1.5, 0.1], [0.0, 0.1, 0.8]])


def _solved(sde: Any, solver: Any = None, t0: float = 0.0, t1: float = 1.0, **more: Any) -> Callable[[Any], Any]:
    solver = sk.EulerMaruyama() if solver is None else solver
    return lambda x0: sk.solve(sde, x0, t0, t1, solver=solver, steps=FIXED, **more).x


def _with_solver(solver: Any) -> tuple[Callable[[Any], Any], Callable[[], Tensor]]:
    """A solve by this solver, on the first problem that fits it, and a start."""
    case = next(case for case in CASES if case.solver == solver)
    sde, x0, t0, t1 = case.make(Fault(NOTHING), (3,), torch.float32)
    return _solved(sde, solver, t0, t1), lambda: x0


def _solves() -> Iterator[Entry]:
    yield Entry("solve", "x0", _solved(NOISY), states)
    for name in ("t0", "t1"):
        ends = {"t0": 0.0, "t1": 1.0}
        yield Entry("solve", name, lambda t, n=name, e=ends: sk.solve(
            DECAY, states(), **{**e, n: t}, solver=sk.RK4(), steps=FIXED).x, one_of_each)  # fmt: skip
    yield Entry("ODE", "x0", _solved(DECAY), states)
    yield Entry("ItoSDE", "x0", _solved(NOISY), states)
    yield Entry("StratonovichSDE", "x0", _solved(
        sk.StratonovichSDE(NOISY.drift, NOISY.diffusion, sk.Noise.DIAGONAL), sk.Heun()), states)  # fmt: skip
    yield Entry("to_ito", "x0", _solved(sk.to_ito(NOISY)), states)
    yield Entry("to_stratonovich", "x0", _solved(sk.to_stratonovich(NOISY), sk.Heun()), states)
    for kind in (sk.Adaptive(rtol=1e-2, atol=1e-2), sk.FixedSteps(3), sk.TimeGrid([0.0, 0.4, 1.0])):
        yield Entry(type(kind).__name__, "x0", lambda x0, steps=kind: sk.solve(
            DECAY, x0, 0.0, 1.0, solver=sk.Heun(), steps=steps).x, states)  # fmt: skip
    yield Entry("SaveAt", "x0", _solved(NOISY, save=sk.SaveAt(times=[0.1, 0.7])), states)
    yield Entry("SaveAt", "times", lambda t: _solved(NOISY, save=sk.SaveAt(times=t))(states()), one_of_each)
    yield Entry("TimeGrid", "times", lambda t: torch.tensor(sk.TimeGrid(t).times), one_of_each)
    yield Entry("Event", "x0", _solved(DECAY, sk.RK4(), event=sk.Event(lambda t, x: x[:, 0] - 0.8)), states)
    yield Entry("Solution", "t", sk.solve(
        DECAY, states(), 0.0, 1.0, solver=sk.Dopri5(), steps=FIXED, save=sk.SaveAt(dense=True)).at, one_of_each)  # fmt: skip
    for gradient in (sk.Checkpointed(), sk.ReversibleAdjoint()):
        yield Entry(type(gradient).__name__, "x0", _solved(
            sk.to_stratonovich(NOISY), sk.ReversibleHeun(), gradient=gradient), states)  # fmt: skip
    yield Entry("path_kl", "x0", lambda x0: sk.path_kl(
        ADDITIVE, sk.ItoSDE(lambda t, x: 0.0 * x, ADDITIVE.diffusion, sk.Noise.ADDITIVE), x0, 0.0, 1.0,
        solver=sk.EulerMaruyama(), steps=FIXED).kl, states)  # fmt: skip
    yield Entry("ensemble", "x0", lambda x0: sk.ensemble(
        NOISY, x0, 0.0, 1.0, 8, solver=sk.EulerMaruyama(), steps=FIXED).moments.mean, lambda: states()[:1])  # fmt: skip
    for kind in ALL:
        call, make = _with_solver(kind())
        yield Entry(kind.__name__, "x0", call, make)
    seen = set[str]()
    others = (*SAMPLERS, sk.BAOAB(), sk.QUICSORT(), sk.ExponentialEuler(), sk.Halving(sk.EulerMaruyama()),
              sk.ReverseDiffusion(), sk.Ancestral(), sk.PredictorCorrector(sk.ReverseDiffusion(), sk.Langevin(snr=0.16)),
              sk.Restart(sk.DPMSolverPP(2), 0.1, 1.0))  # fmt: skip
    for solver in others:
        if type(solver).__name__ not in seen:
            seen.add(type(solver).__name__)
            call, make = _with_solver(solver)
            yield Entry(type(solver).__name__, "x0", call, make)
    for corrector in (sk.Langevin(), sk.AnnealedLangevin()):
        sampler = sk.PredictorCorrector(None, corrector)
        yield Entry(type(corrector).__name__, "x0", _solved(sk.reverse(sk.VP(), score), sampler, 1.0, 0.1), states)


def _equations() -> Iterator[Entry]:
    """SDEs that come with the package, and their tensors."""
    diffusions = (sk.VP(), sk.SubVP(), sk.VE(t_min=0.05), sk.EDM(), sk.Cosine(), sk.RectifiedFlow(),
                  sk.AffineProcess(lambda t: 1 - t**2 / 2, lambda t: t))  # fmt: skip
    for process in diffusions:
        name = type(process).__name__
        yield Entry(name, "x0", _solved(process, t0=0.1, t1=0.5), states)
        yield Entry(name, "t", lambda t, p=process: (p.scale(t), p.sigma(t), p.std(t)), one_of_each)
    for process in (sk.SMLD(8), sk.DDPM(8, beta_max=5.0)):
        yield Entry(type(process).__name__, "x0", lambda x0, p=process: sk.solve(
            sk.reverse(p, score), x0, 1.0, 0.0, solver=sk.ReverseDiffusion(), steps=sk.FixedSteps(8)).x, states)  # fmt: skip
        yield Entry(type(process).__name__, "t", lambda t, p=process: (p.scale(t), p.std(t)), one_of_each)
    plain = (sk.GeometricBrownianMotion(), sk.CIR(), sk.DoubleWell(), sk.OverdampedLangevin(lambda x: 0.5 * x.square()),
             sk.OrnsteinUhlenbeck(), sk.LinearSDE(-1.0), sk.Lorenz(), sk.BrownianBridge(), sk.Semilinear(-1.0))  # fmt: skip
    for sde in plain:
        yield Entry(type(sde).__name__, "x0", _solved(sde, t1=0.5), positive)
    for sde in (sk.FitzHughNagumo(), sk.LotkaVolterra()):
        yield Entry(type(sde).__name__, "x0", _solved(sde, t1=0.5), lambda: positive()[:, :2])
    yield Entry("UnderdampedLangevin", "x0", _solved(sk.UnderdampedLangevin(lambda x: x)), pairs)
    yield Entry("CriticallyDamped", "x0", _solved(sk.CriticallyDamped()), pairs)
    yield Entry("CriticallyDamped", "data", sk.CriticallyDamped().lift, states)
    yield Entry(
        "GeometricBrownianMotion", "x", lambda x: sk.GeometricBrownianMotion().log_prob(x, positive(), 0.5), positive
    )
    yield Entry(
        "GeometricBrownianMotion", "x0", lambda x: sk.GeometricBrownianMotion().log_prob(positive(), x, 0.5), positive
    )
    yield Entry(
        "GeometricBrownianMotion", "w", lambda w: sk.GeometricBrownianMotion().solution(positive(), w, 0.5), states
    )
    yield Entry("CIR", "x", lambda x: sk.CIR().log_prob(x, positive(), 0.5), positive)
    yield Entry("CIR", "x0", lambda x: sk.CIR().log_prob(positive(), x, 0.5), positive)
    yield Entry("DoubleWell", "x", sk.DoubleWell().log_prob, states)
    yield Entry(
        "OverdampedLangevin",
        "x",
        sk.OverdampedLangevin(lambda x: 0.5 * x.square().flatten(1).sum(1)).log_density,
        states,
    )
    yield Entry("LotkaVolterra", "x", sk.LotkaVolterra().invariant, lambda: positive()[:, :2])
    for name in ("A", "b", "L"):
        fixed = {"A": -matrix(), "b": torch.ones(3), "L": matrix()}
        make = (
            (lambda: torch.tensor([0.1, 0.2, 0.3]))
            if name == "b"
            else (lambda n=name: -matrix() if n == "A" else matrix())
        )
        yield Entry("LinearSDE", name, lambda v, n=name, f=fixed: _solved(sk.LinearSDE(**{**f, n: v}))(states()), make)
    for name in ("theta", "mu", "sigma"):
        make = (lambda: torch.tensor([0.1, 0.2, 0.3])) if name == "mu" else matrix
        fixed = {"theta": matrix(), "mu": torch.zeros(3), "sigma": matrix()}
        yield Entry("OrnsteinUhlenbeck", name, lambda v, n=name, f=fixed: _solved(
            sk.OrnsteinUhlenbeck(**{**f, n: v}))(states()), make)  # fmt: skip
    yield Entry("Semilinear", "linear", lambda v: _solved(sk.Semilinear(v, lambda t, x: torch.sin(x)), sk.ExponentialEuler())(
        states()), matrix)  # fmt: skip
    yield Entry("BrownianBridge", "end", lambda v: _solved(sk.BrownianBridge(end=v), t1=0.5)(states()), states)
    element, whole = sk.VP().transition(0.1, 0.5), sk.LinearSDE(-matrix()).transition(0.1, 0.5)
    for law in (element, whole):
        name = type(law).__name__
        yield Entry(name, "x", lambda x, law=law: (law.mean(x), law.sample(x)), states)
        yield Entry(name, "x1", lambda x, law=law: law.log_prob(x, states()), states)
        yield Entry(name, "x0", lambda x, law=law: law.log_prob(states(), x), states)
    yield Entry("check_noise", "x", lambda x: sk.check_noise(NOISY, 0.5, x), states)
    yield Entry("measured_noise", "x", lambda x: sk.measured_noise(NOISY, 0.5, x).value == "diagonal", states)
    yield Entry(
        "measured_noise", "t", lambda t: sk.measured_noise(NOISY, t, states()).value == "diagonal", moments_of_time
    )
    yield Entry("check_noise", "t", lambda t: sk.check_noise(NOISY, t, states()), moments_of_time)
    yield Entry("fokker_planck_residual", "x", lambda x: sk.fokker_planck_residual(
        ADDITIVE, lambda t, x: -energy(t, x), 0.5, x), states)  # fmt: skip
    yield Entry("fokker_planck_residual", "t", lambda t: sk.fokker_planck_residual(
        ADDITIVE, lambda t, x: -energy(t, x * (1 + t)), t, states()), moments_of_time)  # fmt: skip
    yield Entry("Dense", "diffusion", lambda m: _solved(sk.ItoSDE(DECAY.drift, lambda t, x: sk.Dense(m), sk.Noise.GENERAL))(
        states()), lambda: 0.1 * matrix()[None].repeat(4, 1, 1))  # fmt: skip


def _paths() -> Iterator[Entry]:
    def grid(times: Any) -> Any:
        path = sk.BrownianGrid(times, (4, 3), dtype=torch.float32)
        return path.value(path.times[1])

    yield Entry("BrownianGrid", "times", grid, lambda: torch.tensor([0.0, 0.4, 1.0]))
    for name in ("W", "H", "K"):
        given = {n: 0.1 * torch.arange(24.0).reshape(2, 4, 3) for n in ("W", "H", "K")}
        yield Entry("BrownianGrid", name, lambda v, n=name, g=given: sk.BrownianGrid.from_increments(
            [0.0, 0.5, 1.0], **{**g, n: v})(0.0, 0.5), lambda g=given, n=name: g[n].clone())  # fmt: skip
    tree = sk.BrownianTree(0.0, 1.0, (4, 3), dtype=torch.float32)
    yield Entry("BrownianTree", "ta", lambda t: tree(t, 0.9).W, one_of_each)
    yield Entry("BrownianTree", "tb", lambda t: tree(0.1, t).W, one_of_each)
    yield Entry("BrownianTree", "t", tree.value, one_of_each)
    yield Entry("BrownianTree", "x0", _solved(NOISY, path=tree), states)
    yield Entry("FreshIncrements", "x0", _solved(NOISY, path=sk.FreshIncrements(sk.KeyedDraws(2))), states)
    yield Entry(
        "Replay", "recorded", lambda z: _solved(ADDITIVE, seed=sk.Replay({sk.Purpose.PATH: [z] * 4}))(states()), states
    )
    yield Entry("KeyedDraws", "step", lambda s: sk.KeyedDraws(1).normal(
        sk.Purpose.USER, s, (4, 3), torch.float32, torch.device("cpu")), lambda: torch.arange(4))  # fmt: skip


def _scores() -> Iterator[Entry]:
    process, ends = sk.VP(), {"solver": sk.RK4(), "steps": FIXED}
    yield Entry("log_likelihood", "x", lambda x: sk.log_likelihood(
        process, score, x, divergence=sk.Hutchinson(2), **ends).log_prob, states)  # fmt: skip
    for estimator in (sk.Exact(), sk.Hutchinson(2), sk.HutchPlusPlus(2)):
        yield Entry(type(estimator).__name__, "x", lambda x, e=estimator: e(
            lambda y: torch.sin(y), x, e.draw(sk.KeyedDraws(0), x)), states)  # fmt: skip
    yield Entry("encode", "x", lambda x: sk.encode(process, score, x, **ends).x, states)
    yield Entry("decode", "latent", lambda x: sk.decode(process, score, x, temperature=0.9, **ends).x, states)
    yield Entry("interpolate", "start", lambda x: sk.interpolate(x, 1 + states(), [0.2, 0.5]), states)
    yield Entry("interpolate", "end", lambda x: sk.interpolate(1 + states(), x, [0.2, 0.5]), states)
    yield Entry("interpolate", "weight", lambda w: sk.interpolate(states(), 1 + states(), w), one_of_each)
    yield Entry("reverse", "x0", _solved(sk.reverse(process, score), t0=0.9, t1=0.1), states)
    yield Entry("ReverseSDE", "x0", _solved(sk.ReverseSDE(process, score), t0=0.9, t1=0.1), states)
    yield Entry("probability_flow", "x0", _solved(sk.probability_flow(process, score), sk.RK4(), 0.9, 0.1), states)
    yield Entry("langevin_dynamics", "x0", _solved(sk.langevin_dynamics(score, 0.5)), states)
    yield Entry("langevin_dynamics", "t", lambda t: _solved(sk.langevin_dynamics(
        sk.GaussianData(torch.zeros(3), std=0.4).score(process), t))(states()), moments_of_time)  # fmt: skip
    yield Entry("denoise", "x", lambda x: sk.denoise(process, score, 0.5, x), states, traced=True)
    yield Entry("denoise", "t", lambda t: sk.denoise(process, score, t, states()), moments_of_time)
    guided = {
        "EnergyScore": sk.EnergyScore(energy),
        "ClassifierGuidance": sk.ClassifierGuidance(score, lambda t, x: -energy(t, x), 2.0),
        "Guided": sk.Guided(score, score, 2.0),
        "classifier_free": sk.classifier_free(score, score, 2.0),
        "autoguidance": sk.autoguidance(score, score, 2.0),
        "as_score": sk.as_score(process, lambda t, x: x, sk.PredictsNoise()),
        "Converted": sk.Converted(process, lambda t, x: x, sk.PredictsNoise(), sk.PredictsScore()),
    }
    for name, found in guided.items():
        yield Entry(name, "x0", _solved(sk.reverse(process, found), t0=0.9, t1=0.1), states)
    yield Entry("SigmaInterval", "t", lambda t: (process.sigma(t), sk.SigmaInterval(process, 0.1, 0.9).holds(t).double()),
                one_of_each)  # fmt: skip
    asked = (
        sk.PredictsScore(),
        sk.PredictsNoise(),
        sk.PredictsDenoiser(),
        sk.PredictsFlow(),
        sk.PredictsVelocity(),
        sk.PredictsF(),
    )
    for wanted in asked:
        given = sk.PredictsNoise() if not isinstance(wanted, sk.PredictsNoise) else sk.PredictsScore()
        name = type(wanted).__name__
        yield Entry(
            name, "x", lambda x, g=given, w=wanted: sk.convert_prediction(process, 0.5, x, states(), g, w), states
        )
        yield Entry(
            name, "value", lambda x, g=given, w=wanted: sk.convert_prediction(process, 0.5, states(), x, g, w), states
        )
        yield Entry(name, "t", lambda t, g=given, w=wanted: sk.convert_prediction(process, t, states(), states(), g, w),
                    moments_of_time)  # fmt: skip
    yield Entry("convert_prediction", "x", lambda x: sk.convert_prediction(
        process, 0.5, x, states(), sk.PredictsNoise(), sk.PredictsDenoiser()), states)  # fmt: skip
    yield Entry("implicit_score_matching", "x", lambda x: sk.implicit_score_matching(score, 0.5, x), states)
    yield Entry("sliced_score_matching", "x", lambda x: sk.sliced_score_matching(score, 0.5, x), states)
    yield Entry(
        "denoising_score_matching",
        "data",
        lambda x: sk.denoising_score_matching(process, score, 0.5, x, states()),
        states,
    )
    yield Entry(
        "denoising_score_matching",
        "noise",
        lambda x: sk.denoising_score_matching(process, score, 0.5, states(), x),
        states,
    )
    yield Entry("denoising_score_matching", "t", lambda t: sk.denoising_score_matching(process, score, t, states(), states()),
                moments_of_time)  # fmt: skip
    yield Entry("score_regression", "x", lambda x: sk.score_regression(score, 0.5, x, states()), states)
    yield Entry("score_regression", "target", lambda x: sk.score_regression(score, 0.5, states(), x), states)
    yield Entry(
        "score_regression",
        "weight",
        lambda w: sk.score_regression(score, 0.5, states(), 1 + states(), w),
        moments_of_time,
    )
    yield Entry("Pilots", "starts", lambda x: sk.Pilots.of(process, score, x).path[-1], states)
    yield Entry("tune", "pilots", lambda x: sk.tune(process, score, 3, pilots=x).error, states)
    yield Entry("optimal_grid", "pilots", lambda x: torch.tensor(
        sk.optimal_grid(process, score, 3, sk.AngularAdams(2), pilots=x, rounds=1).times), states)  # fmt: skip
    yield Entry("sigma_grid", "sigmas", lambda s: torch.tensor(sk.sigma_grid(process, s).times),
                lambda: torch.tensor([5.0, 2.0, 0.5, 0.05]))  # fmt: skip
    for coordinate in (sk.Angle(), sk.Clock()):
        yield Entry(type(coordinate).__name__, "t", lambda t, c=coordinate: c.clock(process, t), one_of_each)


def _laws() -> Iterator[Entry]:
    data = sk.GaussianMixture(states(), stds=0.4)
    yield Entry("GaussianMixture", "means", lambda v: sk.GaussianMixture(v, stds=0.5).log_prob(states()), states)
    yield Entry(
        "GaussianMixture", "stds", lambda v: sk.GaussianMixture(states(), stds=v).log_prob(states()), one_of_each
    )
    yield Entry(
        "GaussianMixture", "weights", lambda v: sk.GaussianMixture(states(), 0.5, v).log_prob(states()), one_of_each
    )
    yield Entry("GaussianMixture", "covs", lambda v: sk.GaussianMixture(states(), covs=v).log_prob(states()),
                lambda: matrix()[None].repeat(4, 1, 1))  # fmt: skip
    yield Entry("GaussianMixture", "x", data.log_prob, states)
    yield Entry("GaussianMixture", "t", lambda t: data.score(sk.VP())(t, states()), moments_of_time)
    yield Entry(
        "GaussianData",
        "mean",
        lambda v: sk.GaussianData(v, std=0.5).log_prob(states()),
        lambda: torch.tensor([0.2, 0.3, 0.4]),
    )
    yield Entry("GaussianData", "std", lambda v: sk.GaussianData(torch.zeros(3), std=v).log_prob(states()),
                lambda: torch.tensor([0.6, 0.8, 1.0]))  # fmt: skip
    yield Entry("GaussianData", "cov", lambda v: sk.GaussianData(torch.zeros(3), v).log_prob(states()), matrix)
    yield Entry("GaussianData", "x", sk.GaussianData(torch.zeros(3), std=0.4).log_prob, states)
    yield Entry("IsotropicGaussian", "x", sk.IsotropicGaussian(1.0).log_prob, states)
    yield Entry("Moments", "samples", lambda v: (sk.Moments.of(v).mean, sk.Moments.of(v).scatter), states)
    yield Entry(
        "interpolate", "weight", lambda w: sk.interpolate(states(), 1 + states(), w, kind="linear"), one_of_each
    )
    yield Entry("quantiles", "samples", lambda v: sk.quantiles(v, [0.25, 0.8]), states)


# public names that take no tensor: numbers, functions and objects make them, or they are what a user writes or gets back
GRIDS = (
    "angle_grid",
    "density_grid",
    "karras_grid",
    "log_snr_grid",
    "polyexponential_grid",
    "quadratic_grid",
    "uniform_grid",
)
CLASSES_OF_THINGS = ("Calculus", "Direction", "Levy", "Noise", "Purpose", "Status", "Order")
PROTOCOLS = ("Affine", "BrownianMotion", "Corrector", "Denoiser", "Divergence", "Law", "Parametrization", "SDE", "Score",
             "Solver", "StepControl", "DiffusionProcess")  # fmt: skip
RESULTS = ("Ensemble", "Increment", "Incompatible", "LogLikelihood", "PathKL", "SolveFailed", "Span", "Stats", "Step", "Trial",
           "Tuned", "Processes")  # fmt: skip
WITHOUT = frozenset((*GRIDS, *CLASSES_OF_THINGS, *PROTOCOLS, *RESULTS))

ENTRIES = (*_solves(), *_equations(), *_paths(), *_scores(), *_laws())
