import pytest
import torch

from sdekit_generative.losses import SPREADS, spread

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", SPREADS)
def test_uniforms_of_a_batch_do_not_depend_on_how_it_is_split(kind):
    whole = spread(kind, 3, 5, 0, 12, 12, CPU)
    parts = torch.cat([spread(kind, 3, 5, first, n, 12, CPU) for first, n in ((0, 5), (5, 4), (9, 3))])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, spread(kind, 3, 6, 0, 12, 12, CPU))


@pytest.mark.parametrize(("kind", "variance"), [("stratified", 0.0), ("antithetic", 0.0), ("independent", 1 / 12 / 64)])
def test_the_mean_of_a_batch_varies_as_its_spread_says(kind, variance):
    means = torch.stack([spread(kind, 0, step, 0, 64, 64, CPU).mean() for step in range(400)])
    assert float(means.mean()) == pytest.approx(0.5, abs=0.006)
    # a stratified batch only shifts as a whole, by 1/64 at most: variance 1/12/64²
    assert float(means.var()) == pytest.approx(variance, rel=0.25, abs=1 / 12 / 64**2 * 1.3)


def test_antithetic_uniforms_come_in_pairs():
    u = spread("antithetic", 0, 0, 0, 10, 10, CPU)
    assert torch.allclose(u[::2] + u[1::2], torch.ones(5, dtype=torch.float64))


def test_a_spread_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="stratified, antithetic, independent"):
        spread("even", 0, 0, 0, 4, 4, CPU)
