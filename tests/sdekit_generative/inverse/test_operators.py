"""Operators: adjoints, singular values and pseudo-inverses, against matrices; and what each of them measures."""

import math

import pytest
import torch
from scipy import fft

from sdekit_generative.inverse import (
    CT,
    MRI,
    Colorize,
    CompressedSensing,
    Downsample,
    FromFunction,
    GaussianBlur,
    Inpaint,
    Matrix,
    MeasurementError,
    MixChannels,
    MotionBlur,
    PhaseRetrieval,
    Quantise,
    adjoint_error,
    as_matrix,
    mri_mask,
)
from sdekit_generative.inverse.transforms import dct, dct2, idct, idct2

SHAPE = (3, 8, 8)


def _noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _mask(*shape):
    return _noise(*shape, seed=3) > 0


def _roll(x):
    return x.roll(1, -1) * 2.0 - x.flip(1)


IMAGE_OPERATORS = {
    "inpaint": Inpaint(_mask(8, 8)),
    "inpaint a channel": Inpaint(_mask(3, 8, 8)),
    "colorize": Colorize(),
    "mix": MixChannels(_noise(2, 3)),
    "mix, singular": MixChannels(torch.ones(4, 3)),
    "average": Downsample(2),
    "bicubic": Downsample(4, "bicubic"),
    "blur": GaussianBlur(1.3),
    "motion": MotionBlur(4.0, 30.0),
    "sensing": CompressedSensing(SHAPE, 0.25, seed=1),
    "mri": MRI(mri_mask((8, 8), 2.0, seed=1)),
    "mri, single frequencies": MRI(_mask(8, 8)),
    "ct": CT(8, angles=5),
    "function": FromFunction(_roll, SHAPE),
    "matrix": Matrix(_noise(20, 192), SHAPE),
    "composed": Downsample(2) @ GaussianBlur(0.8),
    "three": CompressedSensing((1, 4, 4), 0.5) @ Colorize() @ Downsample(2),
}
FLAT_OPERATORS = {
    "inpaint": Inpaint(_mask(24)),
    "mix": MixChannels(_noise(5, 24)),
    "sensing": CompressedSensing((24,), 0.5),
    "function": FromFunction(lambda x: x.cumsum(1)[:, ::2], (24,)),
    "matrix": Matrix(_noise(30, 24)),
}
CASES = [(name, op, SHAPE) for name, op in IMAGE_OPERATORS.items()]
CASES += [(f"{name}, flat", op, (24,)) for name, op in FLAT_OPERATORS.items()]
IDS = [case[0] for case in CASES]


@pytest.mark.parametrize(("name", "operator", "shape"), CASES, ids=IDS)
def test_the_adjoint_is_the_adjoint(name, operator, shape):
    assert adjoint_error(operator, shape, probes=4) < 1e-13


@pytest.mark.parametrize(("name", "operator", "shape"), CASES, ids=IDS)
def test_samples_of_a_batch_do_not_mix_and_float32_stays_float32(name, operator, shape):
    x = _noise(3, *shape, dtype=torch.float32)
    y = operator(x)
    back = operator.adjoint(y)
    assert y.dtype == back.dtype == torch.float32
    assert back.shape == x.shape
    torch.testing.assert_close(operator(x[1:2]), y[1:2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(operator.adjoint(y[1:2]), back[1:2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "operator", "shape"), CASES, ids=IDS)
def test_singular_values_and_pseudo_inverse_are_those_of_the_matrix(name, operator, shape):
    y = operator(_noise(2, *shape, seed=7)) + operator.keep(_noise(*operator(_noise(2, *shape)).shape, seed=8))
    svd = operator.svd(y)
    if svd is None:
        with pytest.raises(MeasurementError, match="as_matrix"):
            operator.pseudo_inverse(y)
        return
    coefficients = svd.analyse(y)
    torch.testing.assert_close(svd.synthesise(coefficients), y)
    torch.testing.assert_close(coefficients.abs().square().flatten(1).sum(1), y.square().flatten(1).sum(1))
    torch.testing.assert_close(svd.apply(lambda s: s, y), operator(operator.adjoint(y)))
    matrix = as_matrix(operator, shape).matrix
    inverse = torch.linalg.pinv(matrix, rtol=1e-5)
    expected = (y.flatten(1) @ inverse.mT).reshape(2, *shape)
    torch.testing.assert_close(operator.pseudo_inverse(y), expected, rtol=1e-6, atol=1e-8)


def test_a_matrix_made_from_an_operator_does_what_the_operator_does():
    operator = CT(8, angles=3)
    x = _noise(2, 1, 8, 8)
    matrix = as_matrix(operator, (1, 8, 8))
    torch.testing.assert_close(matrix(x), operator(x))
    torch.testing.assert_close(matrix.adjoint(operator(x)), operator.adjoint(operator(x)))


def test_the_cosine_transform_is_scipys():
    for n in (1, 2, 7, 8):
        x = _noise(3, n)
        torch.testing.assert_close(dct(x), torch.from_numpy(fft.dct(x.numpy(), norm="ortho")))
        torch.testing.assert_close(idct(dct(x)), x)
    x = _noise(2, 6, 8)
    torch.testing.assert_close(dct2(x), torch.from_numpy(fft.dctn(x.numpy(), axes=(1, 2), norm="ortho")))
    torch.testing.assert_close(idct2(dct2(x)), x)


def test_fewer_pixels_are_means_of_pixels():
    x = _noise(2, 3, 8, 8)
    torch.testing.assert_close(Downsample(4)(x), torch.nn.functional.avg_pool2d(x, 4))


def test_bicubic_is_the_antialiased_bicubic_of_torch_away_from_the_edges():
    x = _noise(1, 1, 32, 32)
    theirs = torch.nn.functional.interpolate(x, scale_factor=0.5, mode="bicubic", antialias=True, align_corners=False)
    # torch cuts its kernel off at the edges, ours mirrors the image there
    torch.testing.assert_close(Downsample(2, "bicubic")(x)[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2])


@pytest.mark.parametrize("operator", [Downsample(2, "bicubic"), GaussianBlur(2.0), MotionBlur(5.0, 20.0)])
def test_an_even_image_stays_even(operator):
    found = operator(torch.full((1, 1, 8, 8), 0.3, dtype=torch.float64))
    torch.testing.assert_close(found, torch.full_like(found, 0.3))


def test_a_blur_has_the_width_it_is_given():
    x = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    x[..., 20, 20] = 1.0
    spread = GaussianBlur(2.0)(x)[0, 0]
    place = torch.arange(41, dtype=torch.float64) - 20.0
    assert float((spread.sum(0) * place.square()).sum()) == pytest.approx(4.0, rel=0.01)


def test_motion_blur_spreads_a_point_along_its_line():
    x = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    x[..., 8, 8] = 1.0
    level, upright = MotionBlur(5.0, 0.0)(x)[0, 0], MotionBlur(5.0, 90.0)(x)[0, 0]
    torch.testing.assert_close(level[8, 6:11], torch.full((5,), 0.2, dtype=torch.float64))
    torch.testing.assert_close(upright, level.T)
    torch.testing.assert_close(MotionBlur(1.0, 45.0)(x), x)


def test_every_projection_of_a_tomogram_holds_the_whole_mass():
    x = _noise(2, 1, 8, 8)
    projections = CT(8, angles=6)(x)
    expected = x.sum((-2, -1), keepdim=True)[..., 0].expand(2, 1, 6) / math.sqrt(8)
    torch.testing.assert_close(projections.sum(-1), expected)


def test_a_projection_along_the_columns_is_their_sum():
    x = _noise(1, 1, 8, 8)
    found = CT(8, angles=2)(x)[0, 0, 0]
    low = (CT(8).detectors - 1) // 2 - 3
    share = 0.5 * (CT(8).detectors - 1) - 3.5 - math.floor(0.5 * (CT(8).detectors - 1) - 3.5)
    sums = torch.cat((x[0, 0].sum(0), torch.zeros(1))) / math.sqrt(8)
    start = math.floor(0.5 * (CT(8).detectors - 1) - 3.5)
    assert abs(low - start) <= 1
    expected = torch.zeros(CT(8).detectors, dtype=torch.float64)
    expected[start : start + 9] += (1 - share) * sums
    expected[start + 1 : start + 9] += share * sums[:8]
    torch.testing.assert_close(found, expected)


def test_all_frequencies_give_the_image_back():
    x = _noise(2, 1, 8, 8)
    operator = MRI(torch.ones(8, 8))
    torch.testing.assert_close(operator.pseudo_inverse(operator(x)), x)


def test_half_of_k_space_holds_a_real_image():
    mask = torch.zeros(8, 8)
    mask[:, :5] = 1  # frequencies 0 to 4 along the rows; the others are their conjugates
    operator, x = MRI(mask), _noise(2, 1, 8, 8)
    torch.testing.assert_close(operator.pseudo_inverse(operator(x)), x)


def test_the_mri_mask_has_the_centre_and_the_number_of_columns_asked_for():
    mask = mri_mask((16, 32), acceleration=4.0, centre=0.1, seed=2)
    assert int(mask[0].sum()) == 8
    assert bool(mask[:, [0, 1, 31]].all())
    assert not torch.equal(mask, mri_mask((16, 32), acceleration=4.0, centre=0.1, seed=3))


def test_compressed_sensing_measures_random_rows_of_an_orthonormal_matrix():
    operator = CompressedSensing((1, 4, 4), 0.5, seed=3)
    matrix = as_matrix(operator, (1, 4, 4)).matrix
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(8, dtype=torch.float64))
    assert not torch.allclose(matrix, as_matrix(CompressedSensing((1, 4, 4), 0.5, seed=4), (1, 4, 4)).matrix)


def test_what_an_inpainting_observation_holds_outside_its_mask_does_not_matter():
    operator = Inpaint(torch.tensor([1, 0, 1]))
    y = torch.tensor([[1.0, math.nan, 3.0]])
    assert operator.pseudo_inverse(y).tolist() == [[1.0, 0.0, 3.0]]


def test_phases_are_lost_and_an_image_and_its_turned_self_look_alike():
    operator, x = PhaseRetrieval(), _noise(2, 1, 6, 6)
    torch.testing.assert_close(operator(x), operator(-x))
    torch.testing.assert_close(operator(x), operator(x.flip((-2, -1))))
    assert operator(x).shape == (2, 1, 12, 12)


def test_derivatives_of_phase_retrieval_are_difference_quotients():
    operator, x, v = PhaseRetrieval(1.5), _noise(2, 1, 4, 4), _noise(2, 1, 4, 4, seed=1)
    y, pull = operator.linearise(x)
    w, h = _noise(*y.shape, seed=2), 1e-6
    quotient = ((operator(x + h * v) - operator(x - h * v)) / (2 * h) * w).sum()
    torch.testing.assert_close(quotient, (pull(w) * v).sum(), rtol=1e-7, atol=1e-9)
    assert bool(torch.isfinite(operator.linearise(torch.zeros(1, 1, 4, 4))[1](torch.ones(1, 1, 6, 6))).all())


def test_quantising_twice_is_quantising_once_and_errs_by_half_a_step_at_most():
    operator, x = Quantise(step=0.2, block=4), _noise(2, 3, 8, 8)
    y = operator(x)
    torch.testing.assert_close(operator(y), y)
    steps = 0.2 * (1.0 + torch.arange(4)[:, None] + torch.arange(4))
    errors = dct2((y - x).unfold(2, 4, 4).unfold(3, 4, 4)).abs() / steps
    assert 0.45 < float(errors.max()) <= 0.5 + 1e-9
    found, pull = operator.linearise(x)
    assert torch.equal(found, y)
    assert torch.equal(pull(x), x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Inpaint(torch.tensor([0.5, 1.0])), "0 where a pixel is missing"),
        (lambda: Inpaint(torch.zeros(4, 4)), "nothing to be seen"),
        (lambda: Inpaint(torch.ones(4, 4))(torch.zeros(1, 1, 8, 8)), r"mask of shape \(4, 4\) does not fit"),
        (lambda: Downsample(3)(torch.zeros(1, 1, 8, 8)), "3 does not divide 8"),
        (lambda: Downsample(1), "2 or more"),
        (lambda: Downsample(2, "nearest"), "average"),
        (lambda: Colorize()(torch.zeros(1, 1, 8, 8)), "takes 3 channels"),
        (lambda: CompressedSensing((1, 8, 8), 0.0), "fraction"),
        (lambda: CompressedSensing((1, 8, 8))(torch.zeros(1, 1, 4, 4)), "made for images"),
        (lambda: MRI(torch.ones(8, 8))(torch.zeros(1, 1, 4, 4)), "does not fit"),
        (lambda: CT(8)(torch.zeros(1, 1, 4, 4)), "8 × 8"),
        (lambda: Matrix(torch.ones(3, 4), (5,)), "does not hold 4"),
        (lambda: GaussianBlur(0.0), "positive"),
        (lambda: Quantise()(torch.zeros(1, 1, 4, 4)), "blocks of 8"),
        (lambda: PhaseRetrieval(0.5), "1 or more"),
    ],
)
def test_what_does_not_fit_is_said(make, words):
    with pytest.raises(MeasurementError, match=words):
        make()
