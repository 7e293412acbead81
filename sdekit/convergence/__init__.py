"""Convergence as a product: strong and weak errors, fitted orders with intervals, work against precision.

`fit_order(strong_errors(problem, solver, steps=(16, 32, 64, 128), batch=2000))` is an `OrderFit(order, low, high)`.
"""

from .path import RecordedPath
from .problem import Moment, Problem, reflected
from .problems import problems
from .special import posed, problems_for, step_numbers
from .study import Errors, Experiment, OrderFit, Work, fit_order, record, strong_errors, weak_errors, work_precision

__all__ = [
    "Errors",
    "Experiment",
    "Moment",
    "OrderFit",
    "Problem",
    "RecordedPath",
    "Work",
    "fit_order",
    "posed",
    "problems",
    "problems_for",
    "record",
    "reflected",
    "step_numbers",
    "strong_errors",
    "weak_errors",
    "work_precision",
]
