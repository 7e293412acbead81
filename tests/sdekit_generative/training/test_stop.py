"""Being asked to stop: a signal becomes a flag while the block runs, and does afterwards what it did before."""

import signal

import pytest

from sdekit_generative.training import Processes, listening


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_is_noted_and_decides_the_exit_status(number, status):
    before = signal.getsignal(number)
    with listening() as stop:
        assert not stop
        assert stop.exit_status == 0
        signal.raise_signal(number)
        assert stop
        assert stop.signal is number
        assert stop.exit_status == status
        assert stop.agreed(Processes())
    assert signal.getsignal(number) is before


def test_handlers_are_put_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), listening():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGTERM) is before
