"""A number is a function of (seed, purpose, sample, step) and of nothing else."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from sdekit.counters import GOLDEN, fold, mix, mix_int, normal_pair, strides
from sdekit.random import KeyedDraws, Purpose, Replay, as_draws, chunk_steps

CPU = torch.device("cpu")


def _normal(seed, count, tail, step, first=0, purpose=Purpose.PATH, part=0, dtype=torch.float64):
    return KeyedDraws(seed, first).normal(purpose, step, (count, *tail), dtype, CPU, part)


@pytest.mark.parametrize("tail", [(1,), (3,), (2, 5, 5), (20_000,)])
@pytest.mark.parametrize("step", [0, 17, 123_456])
def test_a_sample_gets_the_same_numbers_alone_as_in_any_batch(tail, step):
    whole = _normal(7, 40, tail, step)
    assert torch.equal(_normal(7, 3, tail, step, first=31), whole[31:34])
    assert torch.equal(_normal(7, 1, tail, step), whole[:1])


@pytest.mark.parametrize("tail", [(1,), (3,), (2, 5, 5)])
def test_a_sample_at_its_own_step_gets_the_same_numbers_alone_as_in_any_batch(tail):
    steps = torch.arange(40) * 3
    whole = _normal(7, 40, tail, steps)
    assert torch.equal(_normal(7, 4, tail, steps[20:24], first=20), whole[20:24])
    assert torch.equal(_normal(7, 40, tail, steps * 0 + steps[5])[5], whole[5])


@pytest.mark.parametrize("method", ["normal", "uniform", "sign"])
@pytest.mark.parametrize("per_sample", [False, True])
def test_numbers_do_not_depend_on_the_order_of_asking(method, per_sample):
    def ask(draws, k):
        step = torch.full((5,), k) if per_sample else k
        return getattr(draws, method)(Purpose.CHURN, step, (5, 3), torch.float64, CPU)

    forward, backward = KeyedDraws(3), KeyedDraws(3)
    up = [ask(forward, k) for k in range(40)]
    down = [ask(backward, k) for k in reversed(range(40))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(up, down, strict=True))


@pytest.mark.parametrize("per_sample", [False, True])
def test_seeds_purposes_parts_steps_and_samples_are_independent(per_sample):
    count = 20_000

    def draw(seed=0, purpose=Purpose.PATH, step=0, part=0, first=0):
        where = torch.full((count,), step) if per_sample else step
        return _normal(seed, count, (2,), where, first, purpose, part)[:, 0]

    base = draw()
    others = [draw(seed=s) for s in (1, -1, 2**40)]
    others += [draw(purpose=p) for p in Purpose if p is not Purpose.PATH]
    others += [draw(step=k) for k in (1, 16, 1000)] + [draw(part=1), draw(first=count)]
    for other in others:
        assert abs(float((base * other).mean())) < 4.5 / math.sqrt(count)  # standard error of a correlation: 1/√n


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_are_normal_and_uniforms_uniform(per_sample, dtype):
    draws, count = KeyedDraws(11), 30_000
    step = torch.arange(count) if per_sample else 5
    z = draws.normal(Purpose.USER, step, (count, 3), dtype, CPU)
    u = draws.uniform(Purpose.USER, step, (count, 3), dtype, CPU)
    s = draws.sign(Purpose.USER, step, (count, 3), dtype, CPU)
    assert z.dtype == u.dtype == s.dtype == dtype
    assert stats.kstest(z.flatten().numpy().astype(np.float64), "norm").pvalue > 1e-3
    assert stats.kstest(u.flatten().numpy().astype(np.float64), "uniform").pvalue > 1e-3
    assert float(u.min()) >= 0.0
    assert float(u.max()) < 1.0
    assert set(s.flatten().tolist()) == {-1.0, 1.0}
    assert abs(float(s.mean())) < 4.5 / math.sqrt(3 * count)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    _normal(1, 10, (3,), 0)
    _normal(1, 10, (3,), torch.arange(10))
    assert torch.equal(torch.get_rng_state(), before)
    numbers = _normal(1, 10, (3,), 0)
    torch.manual_seed(6)
    assert torch.equal(_normal(1, 10, (3,), 0), numbers)


def test_words_are_those_of_splitmix64():
    # the first outputs from seed 1234567, as published with the generator
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    found = mix(torch.tensor([1234567]) + strides(torch.arange(1, 6)))
    assert [int(w) % 2**64 for w in found] == known
    assert [mix_int((1234567 + k * GOLDEN) % 2**64) for k in range(1, 6)] == known


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("axis", ["samples", "steps", "entries"])
def test_neighbours_in_every_direction_are_independent(dtype, axis):
    n = 1 << 16
    draws = KeyedDraws(3)
    if axis == "samples":
        z = draws.normal(Purpose.PATH, 5, (n, 1), dtype, CPU).flatten()
    elif axis == "entries":
        z = draws.normal(Purpose.PATH, 5, (1, n), dtype, CPU).flatten()
    else:
        z = torch.cat([draws.normal(Purpose.PATH, k, (16, 1), dtype, CPU) for k in range(n // 16)], 1).flatten()
    for lag in (1, 2, 3, 16, 64, 100):
        a, b = z[:-lag].double(), z[lag:].double()
        for f in (lambda v: v, lambda v: v**2 - 1, lambda v: v.sign(), lambda v: v.abs() - math.sqrt(2 / math.pi)):
            c = f(a) * f(b)
            assert abs(float(c.mean())) < 4.5 * float(c.std()) / math.sqrt(len(c)), (lag, axis)
    tail = stats.kstest(z[z.abs() > 2].abs().double().numpy(), stats.truncnorm(2, math.inf).cdf)
    assert tail.pvalue > 1e-3


def test_every_bit_of_a_word_is_a_fair_coin_and_changes_with_every_bit_of_its_key():
    places = strides(torch.arange(1, 4097))
    base = mix(torch.zeros((), dtype=torch.int64) + places)
    bits = torch.arange(64)
    ones = ((base[:, None] >> bits) & 1).double().mean(0)
    assert float((ones - 0.5).abs().max()) < 4.5 * 0.5 / 64  # standard error of a share of 4096 coins: ½/64
    for bit in range(0, 64, 7):
        key = torch.tensor(1 << bit if bit < 63 else -(2**63))
        changed = (((mix(key + places) ^ base)[:, None] >> bits) & 1).double().mean(0)
        assert float((changed - 0.5).abs().max()) < 5 * 0.5 / 64


def test_keys_do_not_collide_over_a_grid_of_words():
    words = list(itertools.product(range(20), Purpose, range(3), range(50)))
    assert len({fold(*w) for w in words}) == len(words)
    assert fold(1, 2) != fold(2, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tail", [(1,), (5,), (3, 8, 8)])
def test_numbers_do_not_depend_on_whether_samples_share_their_steps(dtype, tail):
    draws = KeyedDraws(9)
    for method in ("normal", "uniform", "sign"):
        shared = torch.stack([getattr(draws, method)(Purpose.PATH, k, (70, *tail), dtype, CPU) for k in range(70)])
        own = getattr(draws, method)(Purpose.PATH, torch.arange(70), (70, *tail), dtype, CPU)
        expected = torch.stack([shared[i, i] for i in range(70)])
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-6 if dtype is torch.float32 else 1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tail", [(1,), (3,), (40,), (3, 8, 8)])
def test_normals_are_those_that_a_compiled_solve_makes_for_itself(dtype, tail):
    draws, shape, steps = KeyedDraws(4, first=5), (70, *tail), chunk_steps(math.prod(tail))
    keys, places = draws.seeds(Purpose.PATH, 3 * steps, steps, shape, dtype, CPU)
    pair = normal_pair(keys, places, dtype)
    for k in range(steps):
        z = draws.normal(Purpose.PATH, 3 * steps + k, shape, dtype, CPU)
        torch.testing.assert_close(pair[k % 2][k // 2], z, rtol=0, atol=1e-6 if dtype is torch.float32 else 1e-14)


def test_many_numbers_are_those_of_few():
    many = KeyedDraws(2).normal(Purpose.PATH, 37, (60_000, 16), torch.float32, CPU)
    few = KeyedDraws(2, first=59_000).normal(Purpose.PATH, 37, (10, 16), torch.float32, CPU)
    torch.testing.assert_close(many[59_000:59_010], few, rtol=0, atol=1e-6)


def test_an_empty_batch_draws_nothing():
    assert _normal(0, 0, (3,), 0).shape == (0, 3)
    assert _normal(0, 4, (0,), 0).shape == (4, 0)
    assert KeyedDraws(0).seeds(Purpose.PATH, 0, 2, (4, 0), torch.float64, CPU)[1].shape == (1, 1, 0)


def test_replay_gives_recorded_arrays_back_in_order_and_says_when_they_run_out():
    z = [torch.full((2, 3), float(k)) for k in range(3)]
    replay = Replay({Purpose.PATH: z[:2], Purpose.CORRECTOR: [z[2]]})

    def ask(purpose, shape=(2, 3)):
        return replay.normal(purpose, 0, shape, torch.float64, CPU)

    assert torch.equal(ask(Purpose.PATH), z[0].double())
    assert torch.equal(ask(Purpose.CORRECTOR), z[2].double())
    assert torch.equal(ask(Purpose.PATH), z[1].double())
    with pytest.raises(ValueError, match="no recorded array left for PATH"):
        ask(Purpose.PATH)
    with pytest.raises(ValueError, match=r"needs shape \(4, 3\), recorded is \(2, 3\)"):
        Replay({Purpose.PATH: z}).normal(Purpose.PATH, 0, (4, 3), torch.float32, CPU)


def test_a_seed_is_an_integer_and_says_so():
    assert as_draws(3).seed == 3
    source = Replay({})
    assert as_draws(source) is source
    for bad in (1.5, "0", True, None):
        with pytest.raises(TypeError, match="seed"):
            KeyedDraws(bad)
    with pytest.raises(ValueError, match="first"):
        KeyedDraws(0, first=-1)
