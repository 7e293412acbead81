import dataclasses
import math

import pytest
import torch

from sdekit_generative.errors import CheckpointError, RunError, TrainingDiverged
from sdekit_generative.networks import NCSNppConfig
from sdekit_generative.train import load_images
from sdekit_generative.training import Checkpoint, Trainer, Training, checkpoint


def _trainer(recipe, **changes) -> Trainer:
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **changes))
    images, _ = load_images(recipe)
    return Trainer(recipe.build(images.shape, images.levels), images, recipe.loss, recipe.training)


def _same(a: Checkpoint, b: Checkpoint) -> bool:
    assert a.state == b.state
    return all(
        set(a.tensors[g]) == set(b.tensors[g])
        and all(torch.equal(a.tensors[g][n], b.tensors[g][n]) for n in a.tensors[g])
        for g in ("model", "ema", "optimizer")
    )


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own(tiny):
    trainer = _trainer(tiny, batch=100)
    seen = torch.cat([trainer._places(step) for step in range(45)])
    n = len(trainer.images)
    for epoch in range(3):
        assert torch.equal(seen[epoch * n : (epoch + 1) * n].sort().values, torch.arange(n))
    assert not torch.equal(seen[:n], seen[n : 2 * n])


def test_a_batch_may_be_larger_than_the_data(tiny):
    trainer = _trainer(tiny, batch=4000)
    assert len(trainer._places(0)) == 4000


def test_going_on_from_a_checkpoint_repeats_the_uninterrupted_run_bit_for_bit(tiny, tmp_path):
    whole = _trainer(tiny)
    losses = [whole.step() for _ in range(9)]
    part = _trainer(tiny)
    for _ in range(4):
        part.step()
    folder = checkpoint.write(tmp_path, 4, part.checkpoint(), keep=1)
    again = _trainer(tiny)
    again.restore(checkpoint.read(folder))
    assert [again.step() for _ in range(5)] == losses[4:]
    assert _same(whole.checkpoint(), again.checkpoint())


def test_training_leaves_the_global_generator_alone(tiny):
    trainer = _trainer(tiny)
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    trainer.step()
    assert torch.equal(torch.randn(4), expected)


def test_another_seed_trains_other_weights(tiny):
    a, b = _trainer(tiny), _trainer(tiny, seed=1)
    assert a.step() != b.step()


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_it_touches_the_weights(tiny, poison):
    trainer = _trainer(tiny)
    trainer.step()
    before = trainer.checkpoint()
    before = Checkpoint({g: {n: t.clone() for n, t in ts.items()} for g, ts in before.tensors.items()}, before.state)
    loss = trainer.loss
    trainer.loss = lambda *arguments: loss(*arguments) * poison
    with pytest.raises(TrainingDiverged, match="at step 2"):
        trainer.step()
    assert _same(before, trainer.checkpoint())


def test_the_learning_rate_rises_stays_and_falls():
    training = Training(steps=100, learning_rate=1.0, warmup=10, cooldown=0.2)
    rates = [training.rate(k) for k in range(100)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[10:80] == pytest.approx([1.0] * 70)
    assert rates[80:] == pytest.approx([(100 - k) / 20 for k in range(80, 100)])


def test_gradients_are_clipped_to_the_norm_asked_for(tiny):
    trainer = _trainer(tiny, clip=1e-3)
    trainer.step()
    norms = [p.grad.norm() for p in trainer.model.network.parameters()]
    assert float(torch.stack(norms).norm()) <= 1e-3 * (1 + 1e-5)


def test_a_checkpoint_of_another_network_is_refused_by_name(tiny):
    other = dataclasses.replace(tiny, network=dataclasses.replace(tiny.network, channels=16))
    with pytest.raises(CheckpointError, match="shape"):
        _trainer(tiny).restore(_trainer(other).checkpoint())


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"cooldown": 1.5},
        {"ema": 1.0},
        {"keep": 0},
        {"clip": 0.0},
        {"accumulate": 0},
        {"precision": "float8"},
        {"times": "even"},
        {"measure": "beauty"},
        {"power_ema": (0.3,)},
        {"processes": 0},
        {"label_dropout": 1.5},
        {"measure_every": -1},
    ],
)
def test_impossible_training_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Training(**wrong)


def _steps(trainer: Trainer, n: int) -> list[float]:
    return [trainer.step() for _ in range(n)]


def _weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.network.parameters()])


@pytest.mark.parametrize("times", ["stratified", "antithetic", "independent"])
def test_a_batch_taken_in_parts_gives_the_weights_of_the_whole(tiny, times):
    whole, parts = _trainer(tiny, times=times, flip=True), _trainer(tiny, times=times, flip=True, accumulate=4)
    losses = [(whole.step(), parts.step()) for _ in range(5)]
    assert max(abs(a - b) for a, b in losses) < 1e-5
    assert float((_weights(whole) - _weights(parts)).abs().max()) < 1e-5
    with pytest.raises(RunError, match="8 images a process and step cannot be taken in 3 equal parts"):
        _trainer(tiny, accumulate=3)


def test_computing_features_twice_to_save_memory_changes_nothing_not_even_what_is_dropped(tiny):
    network = NCSNppConfig(
        channels=8, multipliers=(1, 2), blocks=1, attention_resolutions=(4,), dropout=0.3, scale_by_sigma=False
    )
    usual = _trainer(dataclasses.replace(tiny, network=network))
    saving = _trainer(dataclasses.replace(tiny, network=dataclasses.replace(network, checkpoint=True)))
    assert [usual.step() for _ in range(4)] == pytest.approx([saving.step() for _ in range(4)], rel=1e-5)
    assert float((_weights(usual) - _weights(saving)).abs().max()) < 1e-5


def test_half_of_the_images_are_mirrored_anew_at_each_step(tiny):
    trainer, seen = _trainer(tiny, flip=True, batch=400), []
    good = trainer.dequantisation

    def watched(levels, *arguments):
        seen.append(levels)
        return good(levels, *arguments)

    trainer.dequantisation = watched
    shares = []
    for step in range(3):
        trainer.step()
        own = trainer.images.images[trainer._places(step)]
        mirrored = (seen[step] == own.flip(-1)).flatten(1).all(1)
        assert (mirrored | (seen[step] == own).flatten(1).all(1)).all()
        shares.append(float(mirrored.float().mean()))
    assert all(abs(share - 0.5) < 4 * 0.5 / 400**0.5 for share in shares)
    assert len(set(shares)) == 3


def test_without_a_limit_the_gradient_stays_as_it_is(tiny):
    free, bound = _trainer(tiny, clip=None), _trainer(tiny, clip=1e9)
    assert [free.step(), free.step()] == [bound.step(), bound.step()]
    assert free.gradient_norm == bound.gradient_norm > 0


def test_bfloat16_trains_close_to_float32_with_weights_in_float32(tiny):
    full, half = _trainer(tiny), _trainer(tiny, precision="bfloat16")
    for _ in range(4):
        assert half.step() == pytest.approx(full.step(), rel=0.05)
    assert all(p.dtype is torch.float32 for p in half.model.network.parameters())
    assert not torch.equal(_weights(full), _weights(half))


def test_float16_goes_on_from_a_checkpoint_bit_for_bit_with_its_scale(tiny, tmp_path):
    whole = _trainer(tiny, precision="float16")
    losses = [whole.step() for _ in range(8)]
    part = _trainer(tiny, precision="float16")
    for _ in range(4):
        part.step()
    saved = checkpoint.read(checkpoint.write(tmp_path, 4, part.checkpoint(), keep=1))
    assert saved.state["scaler"]["scale"] > 1.0
    again = _trainer(tiny, precision="float16")
    again.restore(saved)
    assert [again.step() for _ in range(4)] == losses[4:]
    assert _same(whole.checkpoint(), again.checkpoint())


def test_an_overflow_in_float16_leaves_the_step_out_and_halves_the_scale(tiny):
    trainer = _trainer(tiny, precision="float16")
    trainer.step()
    before, scale = _weights(trainer).clone(), trainer.checkpoint().state["scaler"]["scale"]
    loss = trainer.loss
    trainer.loss = lambda *arguments: loss(*arguments) * math.inf
    trainer.step()
    assert torch.equal(_weights(trainer), before)
    assert trainer.checkpoint().state["scaler"]["scale"] == scale / 2
    with pytest.raises(TrainingDiverged):
        _steps(trainer, 30)
    assert torch.equal(_weights(trainer), before)


def test_the_power_averages_are_saved_and_restored(tiny, tmp_path):
    whole, part = _trainer(tiny, power_ema=(0.05, 0.1)), _trainer(tiny, power_ema=(0.05, 0.1))
    for _ in range(6):
        whole.step()
    for _ in range(3):
        part.step()
    again = _trainer(tiny, power_ema=(0.05, 0.1))
    again.restore(checkpoint.read(checkpoint.write(tmp_path, 3, part.checkpoint(), keep=1)))
    for _ in range(3):
        again.step()
    for ours, theirs in zip(whole.power_emas, again.power_emas, strict=True):
        assert all(torch.equal(ours.averages[n], theirs.averages[n]) for n in ours.averages)


@pytest.mark.slow
def test_two_hundred_steps_reach_a_far_better_likelihood_than_a_gaussian(tiny):
    """The loss is, up to a constant, the bound on −log p in nats/dim; a silent network is a Gaussian fitted by hand."""
    wide = dataclasses.replace(tiny, network=dataclasses.replace(tiny.network, channels=16, dropout=0.0))
    trainer = _trainer(wide, steps=200, batch=64, learning_rate=3e-3, warmup=20, cooldown=1.0)
    losses = [trainer.step() for _ in range(200)]
    assert sum(losses[-30:]) / 30 < sum(losses[:5]) / 5 - 0.9
