import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdekit.processes import Processes
from sdekit.quantiles import order_statistics, quantiles

numbers = st.floats(allow_nan=False, width=32)


@given(st.lists(numbers, min_size=1, max_size=40), st.sampled_from([torch.float32, torch.float64]))
def test_order_statistics_are_the_sorted_samples(values, dtype):
    x = torch.tensor(values, dtype=dtype)
    found = order_statistics(x, range(len(x)), Processes())
    assert torch.equal(found, x.sort().values + 0.0)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=40), st.lists(st.floats(0, 1), max_size=5))
def test_quantiles_are_those_of_torch(values, levels):
    x = torch.tensor(values, dtype=torch.float64)[:, None].expand(-1, 2)
    expected = torch.quantile(x, torch.tensor(levels, dtype=torch.float64), dim=0)
    torch.testing.assert_close(quantiles(x, levels), expected, rtol=1e-12, atol=1e-12 * float(x.abs().max()))


def test_infinite_samples_have_quantiles():
    x = torch.tensor([math.inf, -math.inf, 0.0, 1.0, math.inf])
    assert quantiles(x, [0.0, 0.25, 0.5, 0.75, 1.0]).tolist() == [-math.inf, 0.0, 1.0, math.inf, math.inf]
    assert float(quantiles(x, [0.9])) == math.inf


def test_quantiles_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="samples: expected numbers, got 1 NaN"):
        quantiles(torch.tensor([1.0, math.nan]), [0.5])
    with pytest.raises(ValueError, match="samples: expected numbers, got none"):
        quantiles(torch.zeros(0, 2), [0.5])
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        quantiles(torch.zeros(2), [1.5])
    with pytest.raises(TypeError, match="float32 or float64"):
        quantiles(torch.zeros(2, dtype=torch.float16), [0.5])


CODE = """
from sdekit.processes import Processes
from sdekit.quantiles import quantiles
x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
group = Processes.current()
cut = {1: [0, 1000], 2: [0, 1000, 1000]}[size]  # the second of two holds none
print(quantiles(x[cut[rank] : cut[rank + 1]], (0.05, 0.5, 0.95)).tolist())
cut = {1: [0, 1000], 2: [0, 123, 1000]}[size]
print(quantiles(x[cut[rank] : cut[rank + 1]], (0.05, 0.5, 0.95)).tolist())
"""


def test_quantiles_do_not_depend_on_which_process_holds_what(launch):
    (alone,) = launch(CODE, 1)
    assert launch(CODE, 2) == [alone, alone]
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    assert alone.splitlines() == [str(quantiles(x, (0.05, 0.5, 0.95)).tolist())] * 2
