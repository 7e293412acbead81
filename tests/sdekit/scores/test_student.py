from __future__ import annotations

import pytest
from scipy import stats

from sdekit.scores.student import student_probability, student_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 8, 15, 63, 100, 999])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9, 0.95, 0.999])
def test_quantiles_are_those_of_student(degrees: int, probability: float) -> None:
    expected = stats.t.ppf(0.5 * (1.0 + probability), degrees)
    assert student_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9)
    assert student_probability(expected, degrees) == pytest.approx(probability, rel=1e-9)


def test_many_degrees_of_freedom_are_as_good_as_normal() -> None:
    assert student_quantile(0.95, 10**9) == pytest.approx(stats.norm.ppf(0.975), rel=1e-3)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="probability: expected a number between 0 and 1"):
        student_quantile(1.0, 3)
    with pytest.raises(ValueError, match="degrees of freedom"):
        student_quantile(0.95, 0)
