import dataclasses
import math

import pytest
import torch

from sdekit.sdes.diffusion import EDM, VE, VP, RectifiedFlow, SubVP
from sdekit_generative.data import DataRange
from sdekit_generative.model import (
    ClassifierGuided,
    EDMPreconditioning,
    Predict,
    PredictNoise,
    PredictVelocity,
    ScoreModel,
)
from sdekit_generative.networks import DDPMppConfig, NCSNppConfig, UNetConfig
from sdekit_generative.samplers import Fast
from sdekit_generative.sampling import draw

PROCESSES = [VP(t_min=1e-5), SubVP(t_min=1e-3), VE(0.01, 20.0)]


def _gaussian_score(process, t, x, data_std):
    """∇ log of N(0, s² data_std² + std²), in float64."""
    variance = (process.scale(t) * data_std) ** 2 + process.std(t) ** 2
    return -x.double() / variance


def test_an_untrained_network_is_silent(tiny, gaussian):
    x = torch.randn(5, 1, 8, 8)
    untrained = tiny.build((1, 8, 8), 17)
    untrained.network.eval()
    assert torch.equal(untrained(0.3, x).detach(), gaussian(0.3, x))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("fraction", [0.0, 1e-4, 0.3, 1.0])
def test_a_silent_velocity_network_is_the_exact_score_of_gaussian_data(gaussian, process, fraction):
    model = dataclasses.replace(gaussian, process=process)
    t = torch.tensor(process.t_min + fraction * (process.t_max - process.t_min), dtype=torch.float64)
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = _gaussian_score(process, t, x, model.parametrisation.data_std)
    # float32 rounding, and no digit more, is lost: also where std is 1e-3 and a detour over the denoiser loses three
    torch.testing.assert_close(model(t, x).double(), expected, rtol=3e-7, atol=0.0)


def test_times_may_differ_from_sample_to_sample(gaussian):
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    x = torch.randn(5, 1, 8, 8)
    together = gaussian(t, x)
    for i in range(5):
        torch.testing.assert_close(together[i : i + 1], gaussian(t[i, 0, 0, 0], x[i : i + 1]))


def test_noise_and_score_are_one_estimate_for_either_parametrisation(tiny):
    x, t = torch.randn(3, 1, 8, 8), torch.tensor(0.4, dtype=torch.float64)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)

    class Unconditional(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, x, c):
            assert c.shape == (len(x),)
            return self.inner(x)

    process = VP(t_min=1e-5)
    s, std, d = float(process.scale(t)), float(process.std(t)), 0.6
    radius = (s**2 * d**2 + std**2) ** 0.5
    by_hand = {
        PredictNoise(d): network(x / radius),
        PredictVelocity(d): std / radius * (x / radius) - s * d / radius * network(x / radius),
    }
    for parametrisation, noise in by_hand.items():
        model = ScoreModel(Unconditional(), process, parametrisation, DataRange(), (1, 8, 8), 17)
        torch.testing.assert_close(model.noise(t, x), noise)
        torch.testing.assert_close(model(t, x), -noise / std)


def test_a_float64_state_stays_float64_around_a_float32_network(gaussian):
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    score = gaussian(0.5, x)
    assert score.dtype is torch.float64
    expected = _gaussian_score(gaussian.process, torch.tensor(0.5, dtype=torch.float64), x, 0.75)
    torch.testing.assert_close(score, expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize(
    "config", [NCSNppConfig(8, (1, 2), 1, (4,)), UNetConfig(8, (1, 2), 1, ())], ids=["NCSN++", "UNet"]
)
def test_a_network_of_float64_weights_is_evaluated_in_float64(config):
    torch.manual_seed(0)
    network = config.build((3, 8, 8)).eval()
    for p in network.parameters():
        torch.nn.init.normal_(p.data, std=0.1)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    model = ScoreModel(network, VP(), PredictVelocity(), DataRange(), (3, 8, 8), 256)
    with torch.no_grad():
        single = model(0.5, x)
        network.double()
        double = model(0.5, x)
        shifted = model(0.5, x + 1e-10)
    torch.testing.assert_close(double, single, rtol=1e-4, atol=1e-5)
    assert 0.0 < float((shifted - double).abs().max()) < 1e-7
    assert model(0.5, x.float()).dtype is torch.float32


# --- other parametrisations -------------------------------------------------------------------------------------------


class Function(torch.nn.Module):
    """A function as a network without weights."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def _model(function, process, parametrisation):
    return ScoreModel(Function(function), process, parametrisation, DataRange(), (1, 4, 4), 256)


def _images(n=4):
    return torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(0))


D = 0.7  # standard deviation of the Gaussian images of which everything here is known


def _known(process, t, x):
    """(noise, image) expected given x, of images N(0, D²)."""
    s, std = process.scale(t), process.std(t)
    variance = (s * D) ** 2 + std**2
    return std / variance * x, s * D**2 / variance * x


PREDICTIONS = {
    "score": lambda s, std, noise, image: -noise / std,
    "noise": lambda s, std, noise, image: noise,
    "denoised": lambda s, std, noise, image: image,
    "v": lambda s, std, noise, image: s * noise - std * image,
    "flow": lambda s, std, noise, image: noise - image,
}


@pytest.mark.parametrize("process", [*PROCESSES, RectifiedFlow(), EDM()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_whatever_a_network_predicts_is_turned_into_the_score(process, kind):
    t = torch.tensor(process.t_min + 0.6 * (process.t_max - process.t_min), dtype=torch.float64)
    s, std = process.scale(t), process.std(t)

    def network(x, c):
        torch.testing.assert_close(c, torch.full((len(x),), float(process.log_sigma(t))))
        return PREDICTIONS[kind](s, std, *_known(process, t, x)).to(x.dtype)

    x = _images() * float(torch.hypot(s, std))
    found = _model(network, process, Predict(kind))(t, x)
    torch.testing.assert_close(found.double(), _gaussian_score(process, t, x, D), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_networks_of_sigma_alone_see_the_image_unscaled(kind):
    process, t = VP(), torch.tensor(0.5, dtype=torch.float64)
    sigma = float(process.sigma(t))

    def network(y, c):  # of y = image + σ z
        assert float(c[0]) == pytest.approx(sigma)
        noise, image = sigma / (D**2 + sigma**2) * y, D**2 / (D**2 + sigma**2) * y
        s, std = (1.0, sigma) if kind == "score" else (process.scale(t), process.std(t))
        return PREDICTIONS[kind](s, std, noise, image).to(y.dtype)

    x = _images()
    found = _model(network, process, Predict(kind, given="sigma", scaled=True))(t, x)
    torch.testing.assert_close(found.double(), _gaussian_score(process, t, x, D), rtol=1e-5, atol=1e-6)


def test_networks_may_be_told_multiples_of_the_time():
    told = []
    model = _model(lambda x, c: told.append(c) or x, VP(), Predict("noise", given="time", factor=1000.0))
    model(torch.tensor([0.25, 0.5]).reshape(2, 1, 1, 1), _images(2))
    torch.testing.assert_close(told[0], torch.tensor([250.0, 500.0]))


@pytest.mark.parametrize("process", [VP(), VE(0.01, 20.0), EDM()], ids=lambda p: type(p).__name__)
def test_edm_preconditioning_is_that_of_karras(process):
    d, t = 0.4, torch.tensor(0.5, dtype=torch.float64)
    s, sigma = process.scale(t), process.sigma(t)
    torch.manual_seed(0)
    inner = torch.nn.Conv2d(1, 1, 3, padding=1)

    def network(y, c):
        return inner(y) + c[:, None, None, None]

    x = _images() * float(s * sigma)
    y, root = x / s, torch.sqrt(sigma**2 + d**2)
    denoised = d**2 / root**2 * y + sigma * d / root * network(
        (y / root).float(), torch.full((4,), float(sigma.log() / 4))
    )
    expected = (denoised - y) / (s * sigma**2)
    found = _model(network, process, EDMPreconditioning(d))(t, x)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"prediction": "epsilon"}, {"given": "snr"}])
def test_predictions_that_do_not_exist_are_refused(wrong):
    with pytest.raises(ValueError, match="expected one of"):
        Predict(**wrong)


# --- classes and guidance ---------------------------------------------------------------------------------------------


def _by_class(x, c, labels=None):
    """A noise estimate that says which class it was given."""
    named = torch.full((len(x),), -1) if labels is None else labels
    return x * 0.1 + named[:, None, None, None]


def test_labels_bind_to_a_model_and_leave_it_as_it_was():
    model, x = _model(_by_class, VP(), Predict("noise")), _images()
    labels = torch.tensor([0, 3, 1, 2])
    torch.testing.assert_close(model.conditional(labels).noise(0.5, x), _by_class(x, None, labels))
    torch.testing.assert_close(model.conditional(2).noise(0.5, x), _by_class(x, None, torch.full((4,), 2)))
    torch.testing.assert_close(model.noise(0.5, x), _by_class(x, None))


@pytest.mark.parametrize("guidance", [0.0, 1.0, 0.5, 3.0])
def test_guidance_overstates_what_the_class_adds(guidance):
    model, x, labels = _model(_by_class, VP(), Predict("noise")), _images(), torch.tensor([0, 3, 1, 2])
    without, with_class = _by_class(x, None), _by_class(x, None, labels)
    t = torch.linspace(0.2, 0.8, 4, dtype=torch.float64).reshape(4, 1, 1, 1)
    found = model.conditional(labels, guidance).noise(t, x)
    torch.testing.assert_close(found, without + guidance * (with_class - without))


@pytest.mark.parametrize("labels", [torch.zeros(4), torch.zeros(2, 2, dtype=torch.int64), "cat", True])
def test_labels_that_are_no_classes_are_refused(labels):
    with pytest.raises(ValueError, match="labels"):
        _model(_by_class, VP(), Predict("noise")).conditional(labels)


def test_labels_of_another_batch_are_refused():
    with pytest.raises(ValueError, match="3 for 4"):
        _model(_by_class, VP(), Predict("noise")).conditional(torch.zeros(3, dtype=torch.int64))(0.5, _images())


def test_a_classifier_turns_the_score_into_that_of_its_class():
    """Two classes of Gaussian images around ±m: Bayes' rule is exact, and so are the guided score and its samples."""
    process, m, t = VP(), 0.8, torch.tensor(0.3, dtype=torch.float64)

    def logits(y, c):  # of y = x/s: class 0 around +m
        spread = D**2 + c.double().exp() ** 2
        away = [-(y.double() - sign * m).square().flatten(1).sum(1) / (2 * spread) for sign in (1, -1)]
        return torch.stack(away, 1)

    def noise(x, c):  # of the even mixture of both
        sigma = c.double().exp()[:, None, None, None]
        s = (1.0 + sigma**2).rsqrt()
        variance = s**2 * (D**2 + sigma**2)
        p = (s * m * x.double() / variance).sum((1, 2, 3), keepdim=True).mul(2).sigmoid()
        return (s * sigma / variance * (x - s * m * (2 * p - 1))).to(x.dtype)

    x, labels = _images(), torch.tensor([0, 1, 0, 1])
    s, std = float(process.scale(t)), float(process.std(t))
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None, None]
    guided = ClassifierGuided(_model(noise, process, Predict("noise")), logits, labels)
    expected = -(x - s * m * sign) / ((s * D) ** 2 + std**2)
    torch.testing.assert_close(guided(t, x), expected, rtol=1e-4, atol=1e-4)

    asked = torch.tensor([0, 1] * 40)
    found = draw(guided.conditional(asked), len(asked), Fast(steps=30), seed=3)
    by_batches = draw(guided, len(asked), Fast(steps=30), seed=3, batch=33, labels=asked)
    torch.testing.assert_close(found.images, by_batches.images, rtol=0.0, atol=1e-4)
    inner = DataRange().enter(found.images)
    for label, mean in ((0, m), (1, -m)):  # pixels beyond [−1, 1] are cut off, which their median does not mind
        some = inner[asked == label]
        assert abs(float(some.median()) - mean) < 4.0 * 1.25 * D / math.sqrt(some.numel())
    alone = draw(guided.score, 1, Fast(steps=30), seed=3)
    assert found.network_evaluations == 2 * alone.network_evaluations
    with pytest.raises(ValueError, match="knows classes 0 to 1"):
        guided.conditional(2)(t, x)


# --- precision --------------------------------------------------------------------------------------------------------


def test_a_model_may_be_evaluated_in_bfloat16_and_gives_float32():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    seen = []

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, x, c):
            out = self.inner(x)
            seen.append(out.dtype)
            return out

    exact = ScoreModel(Network(), VP(), Predict("noise"), DataRange(), (1, 4, 4), 256)
    x = _images()
    with torch.no_grad():
        rough = dataclasses.replace(exact, precision=torch.bfloat16)(0.5, x)
        assert rough.dtype is torch.float32
        torch.testing.assert_close(rough, exact(0.5, x), rtol=0.02, atol=0.02)
    assert seen == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_network_of_half_precision_takes_images_of_its_own_and_gives_float32(half):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    model = _model(lambda x, c: network(x), VP(), Predict("noise"))
    model.network.inner = network  # whose weights are the network's
    x = _images()
    with torch.no_grad():
        exact = model(0.5, x)
        network.to(half)
        rough = model(0.5, x)
    assert rough.dtype is torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    "config",
    [NCSNppConfig(8, (1, 2), 1, (4,)), DDPMppConfig(8, (1, 2), 1, (4,)), UNetConfig(8, (1, 2), 1, ())],
    ids=["NCSN++", "DDPM++", "UNet"],
)
def test_networks_whose_frequencies_half_precision_would_spoil_say_so(config):
    network = config.build((1, 4, 4)).bfloat16()
    model = ScoreModel(network, VP(), PredictVelocity(), DataRange(), (1, 4, 4), 256)
    with pytest.raises(ValueError, match=r"leave them in float32 .* precision=torch\.bfloat16 of a ScoreModel"):
        model(0.5, _images())
