import numpy as np
import pytest
import torch

import sdekit_generative as sg
from sdekit.sdes.diffusion import EDM, VE, VP
from sdekit_generative.data import DataRange
from sdekit_generative.errors import UserError
from sdekit_generative.interop import Tabulated, from_denoiser, from_function
from sdekit_generative.interop.diffusers import conventions, score_model
from sdekit_generative.interop.tabulated import scheduler_betas

D = 0.6  # standard deviation of the Gaussian images of which everything here is known
SHAPE = (1, 4, 4)


def _images(n=3):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(0))


def _score(process, t, x):
    return -x.double() / ((process.scale(t) * D) ** 2 + process.std(t) ** 2)


def _time(k):
    return torch.tensor(float(k), dtype=torch.float64)


# --- functions and denoisers ------------------------------------------------------------------------------------------


def test_any_function_becomes_a_score_that_can_be_sampled():
    process = VP()

    def noise(x, c):  # told 1000 t
        t = (c.double() / 1000)[:, None, None, None]
        return (-process.std(t) * _score(process, t, x)).to(x.dtype)

    model = from_function(noise, process, SHAPE, prediction="noise", given="time", factor=1000.0)
    x = _images()
    torch.testing.assert_close(model(0.4, x).double(), _score(process, _time(0.4), x), rtol=1e-5, atol=1e-6)
    images = sg.generate(model, 256, sampler=sg.Fast(steps=10))
    assert float((2 * images - 1).std()) == pytest.approx(_clamped_std(D), rel=0.05)


def _clamped_std(std):
    """Of N(0, std²) held to [−1, 1]."""
    values = np.random.default_rng(0).normal(0.0, std, 10**6).clip(-1, 1)
    return float(values.std())


@pytest.mark.parametrize("process", [None, VP(), VE(0.01, 20.0)], ids=["EDM", "VP", "VE"])
def test_a_denoiser_is_asked_about_the_image_unscaled_whatever_the_process(process):
    asked = []

    def denoise(y, sigma):
        asked.append((y, sigma))
        return y * (D**2 / (D**2 + sigma**2))[:, None, None, None]

    model = from_denoiser(denoise, SHAPE, process=process)
    assert model.process == (EDM() if process is None else process)
    t = _time(0.5)
    x = _images() * float(model.process.std(t))
    torch.testing.assert_close(model(t, x).double(), _score(model.process, t, x), rtol=1e-4, atol=1e-5)
    y, sigma = asked[0]
    torch.testing.assert_close(y, x / float(model.process.scale(t)))
    torch.testing.assert_close(sigma, torch.full((3,), float(model.process.sigma(t))))
    assert y.dtype is sigma.dtype is torch.float32


def test_denoisers_with_classes_are_told_them_as_vectors():
    told = []
    model = from_denoiser(lambda y, sigma, vector: told.append(vector) or y, SHAPE, classes=3)
    model.conditional(torch.tensor([2, -1, 0]))(0.5, _images())
    assert told[0].tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    model(0.5, _images())
    assert told[1].tolist() == [[0, 0, 0]] * 3


def test_a_module_brings_its_weights_and_device_along():
    network = torch.nn.Conv2d(1, 1, 3, padding=1)

    class Denoiser(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, y, sigma):
            return self.inner(y)

    assert {id(p) for p in from_denoiser(Denoiser(), SHAPE).network.parameters()} == {
        id(p) for p in network.parameters()
    }


@pytest.mark.parametrize(
    ("function", "error", "said"),
    [(lambda x, c: x[:, :, :2], ValueError, "same shape"), (lambda x, c: (x,), TypeError, "a tuple")],
)
def test_what_is_no_image_is_refused(function, error, said):
    with pytest.raises(error, match=said):
        from_function(function, VP(), SHAPE)(0.5, _images())


# --- numbered steps ---------------------------------------------------------------------------------------------------


def _betas(**config):
    return scheduler_betas({"num_train_timesteps": 1000, **config}).numpy()


def test_step_zero_has_the_noise_of_one_step_already():
    process = Tabulated.of_betas([0.1, 0.2, 0.5])
    kept = [0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.5]
    for k, left in enumerate(kept):
        assert float(process.scale(float(k))) == pytest.approx(np.sqrt(left), rel=1e-12)
        assert float(process.std(float(k))) == pytest.approx(np.sqrt(1 - left), rel=1e-12)
    assert (process.t_min, process.t_max, process.prior_std()) == (0.0, 2.0, 1.0)


def test_between_steps_the_logarithm_of_the_noise_level_is_linear():
    process = Tabulated.of_betas(_betas(beta_schedule="linear"))
    t = torch.tensor([0.0, 0.25, 17.5, 998.75, 999.0], dtype=torch.float64)
    low, high = process.log_sigma(t.floor().clamp_max(998)), process.log_sigma(t.floor().clamp_max(998) + 1)
    torch.testing.assert_close(process.log_sigma(t), low + (t - t.floor().clamp_max(998)) * (high - low))
    torch.testing.assert_close(process.time(process.log_sigma(t)), t)
    torch.testing.assert_close(process.scale(t) ** 2 + process.std(t) ** 2, torch.ones_like(t))


def test_the_process_keeps_its_digits_where_hardly_any_noise_is():
    process = Tabulated.of_betas([1e-12, 1e-12])
    assert float(process.std(0.0)) == pytest.approx(1e-6, rel=1e-9)
    assert float(process.std(1.0)) == pytest.approx(np.sqrt(2) * 1e-6, rel=1e-9)


def test_schedules_are_those_that_their_names_stand_for():
    np.testing.assert_allclose(_betas(beta_start=1e-4, beta_end=0.02)[[0, 999]], [1e-4, 0.02])
    np.testing.assert_allclose(
        np.sqrt(_betas(beta_schedule="scaled_linear")[500]), 0.01 + (0.02**0.5 - 0.01) * 500 / 999
    )
    cosine = np.cumprod(1 - _betas(beta_schedule="squaredcos_cap_v2"))
    expected = np.cos((500 / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine[499], expected, rtol=1e-9)
    sigmoid = _betas(beta_schedule="sigmoid", beta_start=0.0, beta_end=1.0)
    np.testing.assert_allclose(sigmoid[0], 1 / (1 + np.exp(6)), rtol=1e-9)
    np.testing.assert_allclose(scheduler_betas({"trained_betas": [0.1, 0.3]}), [0.1, 0.3])


def test_schedules_without_signal_at_the_end_leave_that_step_out():
    betas = scheduler_betas({"num_train_timesteps": 100, "rescale_betas_zero_snr": True})
    assert float(betas[-1]) == 1.0
    process, plain = Tabulated.of_betas(betas), Tabulated.of_betas(scheduler_betas({"num_train_timesteps": 100}))
    assert process.t_max == 98.0
    assert float(process.scale(0.0)) == pytest.approx(float(plain.scale(0.0)), rel=1e-9)


@pytest.mark.parametrize("betas", [[0.1], [0.1, 1.5], [0.0, 0.1]])
def test_steps_that_are_none_are_refused(betas):
    with pytest.raises(ValueError, match="expected"):
        Tabulated.of_betas(betas)


# --- diffusers --------------------------------------------------------------------------------------------------------

STEPS = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}


class StandIn(torch.nn.Module):
    """Called and configured as a UNet2DModel; knows the Gaussian images of D."""

    def __init__(self, prediction, learned_variance=False):
        super().__init__()
        self.config = {"sample_size": 4, "in_channels": 1}
        self.prediction, self.learned_variance = prediction, learned_variance
        self.kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
        self.told = []

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        assert return_dict is False
        self.told.append((timestep, class_labels))
        kept = self.kept[timestep.round().long()][:, None, None, None]
        s, std = kept.sqrt(), (1 - kept).sqrt()
        noise = std / (kept * D**2 + std**2) * sample
        image = s * D**2 / (kept * D**2 + std**2) * sample
        out = {"epsilon": noise, "sample": image, "v_prediction": s * noise - std * image}[self.prediction]
        out = out.to(sample.dtype)
        return (torch.cat([out, out + 1], 1) if self.learned_variance else out,)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("k", [0, 1, 500, 999])
def test_every_prediction_is_the_score_at_every_step(prediction, k):
    unet = StandIn(prediction)
    model = score_model(unet, {**STEPS, "_class_name": "DDIMScheduler", "prediction_type": prediction})
    x = _images()
    kept = float(unet.kept[k])
    expected = -x / (kept * D**2 + 1 - kept)
    # digits that a denoised image loses where there is hardly any noise
    tolerance = 1e-5 if prediction != "sample" or k > 1 else 1e-3
    torch.testing.assert_close(model(_time(k), x), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(unet.told[0][0], torch.full((3,), float(k)))
    assert unet.told[0][1] is None


def test_between_steps_the_network_is_told_the_fraction():
    unet = StandIn("epsilon")
    score_model(unet, STEPS)(_time(17.25), _images())
    torch.testing.assert_close(unet.told[0][0], torch.full((3,), 17.25))


def test_a_scheduler_is_as_good_as_its_configuration_and_images_can_be_made():
    class Scheduler:
        config = {**STEPS, "_class_name": "DDPMScheduler", "steps_offset": 1, "timestep_spacing": "leading"}

    model = score_model(StandIn("epsilon", learned_variance=True), Scheduler())
    assert model.shape == SHAPE
    assert model.data_range == DataRange()
    images = sg.generate(model, 256, sampler=sg.PC(steps=50, t_end=0.0))
    assert float((2 * images - 1).std()) == pytest.approx(_clamped_std(D), rel=0.1)


def test_schedulers_that_were_made_and_not_loaded_are_known_by_their_class():
    class ScoreSdeVeScheduler:  # whose configuration, unless it comes from a file, does not name it
        config = {"num_train_timesteps": 2000, "snr": 0.15, "sigma_min": 0.02, "sigma_max": 90.0}

    class EDMEulerScheduler:
        config = {"sigma_min": 0.01, "sigma_max": 60.0, "sigma_data": 0.7, "prediction_type": "epsilon"}

    assert score_model(StandIn("epsilon"), ScoreSdeVeScheduler()).process == VE(0.02, 90.0)
    model = score_model(StandIn("epsilon"), EDMEulerScheduler())
    assert (model.process, model.parametrisation) == (EDM(0.01, 60.0), sg.EDMPreconditioning(0.7))


def test_labels_are_named_as_the_network_knows_them():
    unet = StandIn("epsilon")
    model = score_model(unet, STEPS, null_label=10)
    model.conditional(torch.tensor([3, -1, 0]))(_time(5), _images())
    assert unet.told[0][1].tolist() == [3, 10, 0]
    model(_time(5), _images())
    assert unet.told[1][1].tolist() == [10, 10, 10]
    with pytest.raises(ValueError, match="null_label"):
        score_model(unet, STEPS).conditional(-1)(_time(5), _images())


def test_ve_schedulers_tell_the_noise_level_and_are_given_the_score():
    process, parametrisation = conventions({"_class_name": "ScoreSdeVeScheduler", "sigma_min": 0.02, "sigma_max": 90.0})
    assert process == VE(0.02, 90.0)
    told = []

    def network(x, c):
        told.append(c)
        return torch.ones_like(x)

    model = from_function(network, process, SHAPE, parametrisation=parametrisation)
    torch.testing.assert_close(model(0.5, _images()), torch.ones(3, *SHAPE))
    torch.testing.assert_close(told[0], torch.full((3,), (0.02 * 90.0) ** 0.5))


def test_edm_schedulers_are_preconditioned_by_their_own_spread():
    process, parametrisation = conventions({"_class_name": "EDMEulerScheduler", "sigma_data": 0.7, "sigma_max": 60.0})
    assert process == EDM(0.002, 60.0)
    assert parametrisation == sg.EDMPreconditioning(0.7)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}, "from_function"),
        ({}, "numbered steps"),
        ({**STEPS, "_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "from_function"),
        ({**STEPS, "_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "from_function"),
        ({**STEPS, "prediction_type": "flow"}, "prediction_type"),
        ({**STEPS, "beta_schedule": "laplace"}, "beta_schedule"),
        ({**STEPS, "beta_end": 2.0}, "between 0 and 1"),
    ],
    ids=str,
)
def test_schedulers_that_are_not_known_are_refused(config, said):
    with pytest.raises(UserError, match=said):
        conventions(config)


def test_a_network_that_does_not_say_its_size_must_be_told_it():
    unet = StandIn("epsilon")
    unet.config = {"in_channels": 1}
    with pytest.raises(UserError, match="shape="):
        score_model(unet, STEPS)
    assert score_model(unet, STEPS, shape=(1, 4, 4)).shape == (1, 4, 4)
