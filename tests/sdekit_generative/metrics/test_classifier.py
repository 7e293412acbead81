import pytest
import torch

from sdekit_generative.data import Digits
from sdekit_generative.metrics import digit_features, frechet_distance
from sdekit_generative.metrics.classifier import FEATURES, pretrained
from sdekit_generative.metrics.make_classifier import accuracy, train


def test_the_kept_classifier_reads_held_out_digits():
    training, held_out = Digits().load().split()
    assert accuracy(pretrained(), training) > 0.99
    assert accuracy(pretrained(), held_out) > 0.97
    assert float(digit_features(training.images).var(0).mean()) == pytest.approx(1.0, rel=1e-4)


def test_features_of_levels_and_of_floats_are_the_same():
    levels = Digits().load().images[:20]
    assert digit_features(levels).shape == (20, FEATURES)
    assert torch.equal(digit_features((levels.float() + 0.5) / 17), digit_features(levels))


def test_the_distance_tells_real_digits_from_blurred_digits_and_noise():
    training, held_out = Digits().load().split()
    reference = digit_features(training.images)
    real = held_out.images[:100]
    blurred = torch.nn.functional.avg_pool2d(real.float(), 3, stride=1, padding=1).to(torch.uint8)
    noise = torch.randint(0, 17, real.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    distances = [frechet_distance(digit_features(images), reference) for images in (real, blurred, noise)]
    assert distances[0] < 0.2 * min(distances[1:])


@pytest.mark.slow
def test_the_script_makes_the_weights_that_are_kept():
    training, held_out = Digits().load().split()
    made = train(training)
    assert accuracy(made, held_out) > 0.97
    torch.testing.assert_close(
        made.features(torch.zeros(1, 1, 8, 8)), pretrained().features(torch.zeros(1, 1, 8, 8)), rtol=0.05, atol=0.05
    )
