"""What holds for all tests of faults: no socket is opened, and torch says every time what it would say once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch


class Reached(AssertionError):
    """Something tried to reach a network."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only sockets of this machine's file system may be connected."""
    for name in ("connect", "connect_ex"):
        connect = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any, connect: Any = connect) -> Any:
            if self.family != socket.AF_UNIX:
                raise Reached(f"a connection to {address!r} was tried")
            return connect(self, address)

        monkeypatch.setattr(socket.socket, name, guarded)

    def unasked(host: Any, *more: Any, **how: Any) -> Any:
        raise Reached(f"the address of {host!r} was looked up")

    monkeypatch.setattr(socket, "getaddrinfo", unasked)


@pytest.fixture(autouse=True)
def _every_warning() -> Iterator[None]:
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)
