import dataclasses
import math
from functools import partial

import pytest
import torch

import sdekit as sk
from sdekit_generative import draw, generate, load
from sdekit_generative.samplers import ODE, PC, Fast
from sdekit_generative.sampling import forward_trajectory, trajectory

SAMPLERS = [
    PC(steps=24),
    PC(steps=24, corrections=0),
    PC(steps=22, corrections=2),
    ODE(rtol=1e-3, atol=1e-3),
    ODE(rtol=1e-2, atol=1e-2, denoise=True),
    Fast(steps=10),
    Fast(sk.DPMSolverPP(3), steps=10, grid=partial(sk.karras_grid, rho=5.0)),
    Fast(sk.SEEDS(2), steps=8, churn=1.0, grid=sk.log_snr_grid),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{type(s).__name__}-{getattr(s, 'solver', None)}")
def test_an_image_is_the_same_alone_in_a_batch_and_in_chunks(tiny_run, sampler):
    model = load(tiny_run)
    whole = generate(model, n=64, sampler=sampler, seed=3)
    alone = generate(model, n=1, first=7, sampler=sampler, seed=3)
    chunks = generate(model, n=64, sampler=sampler, seed=3, batch=10)
    torch.testing.assert_close(alone[0], whole[7], rtol=0, atol=5e-5)
    torch.testing.assert_close(chunks, whole, rtol=0, atol=5e-5)
    assert float((whole[7] - whole[8]).abs().max()) > 0.1
    assert float((generate(model, n=1, first=7, sampler=sampler, seed=4)[0] - whole[7]).abs().max()) > 0.1


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{type(s).__name__}-{getattr(s, 'solver', None)}")
def test_images_are_floats_between_zero_and_one(tiny_run, sampler):
    images = generate(load(tiny_run), n=3, sampler=sampler)
    assert images.shape == (3, 1, 8, 8)
    assert images.dtype is torch.float32
    assert float(images.min()) >= 0.0
    assert float(images.max()) <= 1.0


@pytest.mark.parametrize(
    ("sampler", "tolerance"),
    [
        (PC(steps=200), 0.04),
        (PC(steps=300, corrections=0), 0.01),
        (ODE(1e-4, 1e-4), 0.002),
        (Fast(sk.AngularAdams(3, sigma_data=0.75), steps=5), 0.002),
        (Fast(sk.UniPC(3), steps=20), 0.02),
        (Fast(sk.SASolver(3, 4), steps=30, churn=1.0), 0.02),
    ],
)
def test_samples_of_the_gaussian_model_have_its_spread(gaussian, sampler, tolerance):
    """The law is N(0, 0.75²); the Langevin corrector is biased by its step size, here by less than 4 %."""
    n = 1024
    x = gaussian.process.prior_sample((n, *gaussian.shape), seed=0)
    with torch.no_grad():
        solution = sampler.route(gaussian).solve(x, seed=0, first=0)
    end = solution.x if solution.mean is None else solution.mean
    numbers = end.double().flatten()
    standard_error = 0.75 / math.sqrt(2 * len(numbers))
    assert abs(float(numbers.std()) - 0.75) < 3 * standard_error + tolerance * 0.75
    assert abs(float(numbers.mean())) < 3 * 0.75 / math.sqrt(len(numbers))


def test_network_evaluations_are_counted(tiny_run):
    model = load(tiny_run)
    assert draw(model, 2, PC(steps=24)).network_evaluations == 48
    assert draw(model, 2, PC(steps=24, corrections=0)).network_evaluations == 24
    calls = []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    found = draw(model, 1, ODE()).network_evaluations
    assert found == len(calls)


def test_progress_runs_from_zero_to_one_over_all_chunks(tiny_run):
    seen = []
    generate(load(tiny_run), n=5, sampler=PC(steps=22), batch=2, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
    assert len(seen) == 66


def test_a_reverse_trajectory_begins_at_the_prior_and_ends_where_sampling_ends(tiny_run):
    model, sampler = load(tiny_run), PC(steps=30, corrections=0)
    states, levels = trajectory(model, 3, 6, sampler, seed=5)
    assert states.shape == (6, 3, 1, 8, 8)
    assert torch.equal(states[0], model.process.prior_sample((3, 1, 8, 8), seed=5))
    end = model.data_range.leave(states[-1]).clamp(0, 1)
    torch.testing.assert_close(end, generate(model, 3, sampler, seed=5))
    assert bool((levels.diff() < 0).all())


def test_a_forward_trajectory_has_the_law_of_the_process_at_every_frame(gaussian):
    images = torch.full((1600, 1, 4, 4), 0.3)
    levels = torch.tensor([1.5, -0.5, -3.0], dtype=torch.float64)
    frames = forward_trajectory(gaussian, images, levels, seed=0)
    for frame, level in zip(frames, [-3.0, -0.5, 1.5], strict=True):
        t = gaussian.process.time(level)
        s, std = float(gaussian.process.scale(t)), float(gaussian.process.std(t))
        numbers = frame.double()
        assert abs(float(numbers.mean()) - 0.3 * s) < 4 * std / math.sqrt(numbers.numel())
        assert abs(float(numbers.std()) / std - 1) < 4 / math.sqrt(2 * numbers.numel())


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 2.5}, {"n": 1, "batch": 0}, {"n": 1, "first": -1}])
def test_impossible_requests_are_refused(gaussian, wrong):
    with pytest.raises((ValueError, TypeError), match="must be an integer"):
        generate(gaussian, **wrong)


@pytest.mark.parametrize(
    "process", [sk.VE(0.01, 50.0), sk.SubVP(t_min=1e-3), sk.RectifiedFlow(t_min=1e-3, t_max=0.999)]
)
def test_few_steps_serve_every_process(gaussian, process):
    """The flow of a Gaussian is known, x(0) of it is D at the end, and 15 evaluations give it to 1 %."""
    model = dataclasses.replace(gaussian, process=process)
    x = process.prior_sample((64, *model.shape), seed=1, dtype=torch.float64)
    solution = Fast(steps=14, t_end=1e-3).route(model).solve(x)
    t, d = max(process.t_min, 1e-3), model.parametrisation.data_std
    s1, s0 = (float(process.scale(u)) for u in (t, process.t_max))
    std1, std0 = (float(process.std(u)) for u in (t, process.t_max))
    end = x * math.hypot(s1 * d, std1) / math.hypot(s0 * d, std0)
    expected = end * s1 * d**2 / ((s1 * d) ** 2 + std1**2)
    torch.testing.assert_close(solution.mean, expected, rtol=0, atol=0.01)
    assert int(solution.stats.evaluations.max()) == solution.stats.model_calls == 15


def test_what_is_not_a_sampler_is_refused_by_name(gaussian):
    with pytest.raises(TypeError, match=r"write PC\(…\)"):
        generate(gaussian, 1, PC)
    with pytest.raises(TypeError, match="sampler: expected a sampler such as PC"):
        generate(gaussian, 1, sk.Euler())
    for wrong in ({"steps": 0}, {"churn": -1.0}, {"t_end": -1.0}):
        with pytest.raises(ValueError, match=f"Fast: {next(iter(wrong))}"):
            Fast(**wrong)
    with pytest.raises(ValueError, match="PC: snr"):
        PC(snr=0.0)


class Coloured(torch.nn.Module):
    """A network of the Gaussian whose mean is the class's: what it is told of classes can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[int]] = []
        self.zero = torch.nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, x: torch.Tensor, c: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        labels = torch.full((len(x),), -1) if labels is None else labels
        self.seen.append(labels.tolist())
        return x * self.zero - 0.2 * labels[:, None, None, None]


def test_every_image_has_the_label_that_it_was_given_in_whatever_chunk(gaussian):
    network = Coloured()
    model = dataclasses.replace(gaussian, network=network)
    labels = torch.tensor([0, 1, 2, 1, 0])
    whole = generate(model, 5, Fast(steps=5), labels=labels)
    chunks = generate(model, 5, Fast(steps=5), labels=labels, batch=2)
    torch.testing.assert_close(chunks, whole, rtol=0, atol=1e-6)
    assert network.seen[6:18:6] == [[0, 1], [2, 1]]
    one = generate(model, 1, Fast(steps=5), first=2, labels=2)
    torch.testing.assert_close(one[0], whole[2], rtol=0, atol=1e-6)
    kept = generate(model.conditional(labels), 5, Fast(steps=5), batch=3)
    torch.testing.assert_close(kept, whole, rtol=0, atol=1e-6)
    assert float((generate(model, 1, Fast(steps=5), first=2, labels=0)[0] - whole[2]).abs().max()) > 0.05
    with pytest.raises(ValueError, match="labels: got 5 for 4 images"):
        generate(model, 4, Fast(steps=5), labels=labels)
