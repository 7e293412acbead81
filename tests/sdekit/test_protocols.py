"""The small words that everything else is said with: matrices of noise, increments, times and shapes."""

import math

import pytest
import torch

from sdekit.protocols import (
    Dense,
    Increment,
    Span,
    advance,
    apply,
    as_time,
    broadcast,
    diffuse,
    expand,
    match,
    sample_norm,
)
from sdekit.random import Purpose

F64 = torch.float64


def test_matrices_of_noise_add_and_scale_entry_by_entry():
    a, b = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[0.5, 0.0], [-1.0, 1.0]]])
    assert torch.equal((Dense(a) + Dense(b)).matrix, a + b)
    assert torch.equal((Dense(a) - Dense(b)).matrix, a - b)
    assert torch.equal((3.0 * Dense(a)).matrix, 3.0 * a)
    # one factor a component multiplies the component's row, whichever Brownian motion it is for
    assert torch.equal((Dense(a) * torch.tensor([[2.0, 10.0]])).matrix, torch.tensor([[[2.0, 4.0], [30.0, 40.0]]]))


def test_a_matrix_of_noise_multiplies_the_motions_of_each_sample():
    g = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=F64).reshape(1, 3, 2)
    w = torch.tensor([[1.0, 0.0], [0.5, -1.0]], dtype=F64)
    expected = torch.tensor([[1.0, 3.0, 5.0], [-1.5, -2.5, -3.5]], dtype=F64)
    assert torch.equal(apply(Dense(g), w), expected)
    assert torch.equal(diffuse(torch.ones(2, 3, dtype=F64), Dense(g), w), 1.0 + expected)


def test_a_map_reaches_every_part_that_an_increment_has():
    w = torch.tensor([[2.0, 3.0]])
    doubled = Increment(w, H=w + 1.0, A=w[:, :, None] * w[:, None, :]).map(lambda part: 2.0 * part)
    assert torch.equal(doubled.W, 2.0 * w)
    assert torch.equal(doubled.H, 2.0 * (w + 1.0))
    assert doubled.K is None
    assert torch.equal(doubled.A, torch.tensor([[[8.0, 12.0], [12.0, 18.0]]]))


def test_a_step_moves_by_slope_times_length_whatever_the_length_is_given_as():
    x, slope = torch.tensor([[1.0, -2.0], [0.5, 4.0]]), torch.tensor([[0.25, 1.0], [-2.0, 0.0]])
    assert torch.equal(advance(x, slope, 0.5), x + 0.5 * slope)
    assert torch.equal(advance(x, slope, torch.tensor(0.5, dtype=F64)), x + 0.5 * slope)
    each = torch.tensor([[0.5], [-2.0]])
    assert torch.equal(advance(x, slope, each), x + each * slope)


def test_coefficients_of_each_sample_take_the_dtype_of_the_state_and_shared_ones_leave_it_alone():
    x = torch.ones(2, 3)
    each, shared = torch.tensor([[2.0], [3.0]], dtype=F64), torch.tensor(2.0, dtype=F64)
    assert (match(each, x) * x).dtype is torch.float32
    assert (match(shared, x) * x).dtype is torch.float32
    assert match(1.5, x) == 1.5
    assert expand(torch.tensor([0.1, 0.2]), torch.ones(2, 3, 4)).shape == (2, 1, 1)
    assert expand(shared, x) is shared


def test_the_norm_of_a_sample_is_that_of_all_its_numbers():
    v = torch.stack((torch.full((3, 4), 2.0), torch.zeros(3, 4)))
    assert torch.equal(sample_norm(v), torch.tensor([math.sqrt(48.0), 0.0]).reshape(2, 1, 1))


def test_tensors_are_broadcast_to_one_shape():
    a, b = broadcast(torch.tensor(1.0), torch.tensor([2.0, 3.0]))
    assert torch.equal(torch.stack((a, b)), torch.tensor([[1.0, 1.0], [2.0, 3.0]]))


def test_a_time_is_a_number_and_a_step_without_a_source_has_no_numbers_to_give():
    assert as_time(0.1) == torch.tensor(0.1, dtype=F64)
    with pytest.raises(TypeError, match="a number or a tensor of numbers"):
        as_time("soon")
    with pytest.raises(ValueError, match="seed"):
        Span(as_time(0.0), as_time(1.0), 1.0).normal(Purpose.PATH, torch.zeros(2, 1))
