"""No socket is opened by importing, by solving, by training or by any command."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

import sdekit as sk
import sdekit_generative as sg

from .conftest import Reached

# every way out is closed before anything is imported; what is tried is printed
CLOSED = """
import socket, sys
tried = []
class Closed(socket.socket):
    def connect(self, address):
        tried.append(("connect", address))
        raise OSError("closed")
    connect_ex = sendto = bind = connect
socket.socket = Closed
for name in ("create_connection", "getaddrinfo", "gethostbyname"):
    setattr(socket, name, lambda *a, name=name, **k: tried.append((name, a)) or (_ for _ in ()).throw(OSError("closed")))
"""
LIBRARY = """
import torch, warnings
torch.set_num_threads(1)
import sdekit as sk, sdekit_generative as sg
for module in (sk, sg):
    for name in module.__all__:
        getattr(module, name)
sde = sk.ItoSDE(lambda t, x: -x, lambda t, x: 0.3 * x, noise=sk.Noise.DIAGONAL)
for steps in (sk.FixedSteps(4), sk.Adaptive(rtol=1e-2, atol=1e-2)):
    assert sk.solve(sde, torch.ones(3, 2), 0.0, 1.0, solver=sk.SRI(), steps=steps).ok
assert sk.Processes.current().size == 1
print("tried", tried)
"""
COMMAND = """
import contextlib, io, torch
torch.set_num_threads(1)
from sdekit_generative.__main__ import main
for line in sys.stdin.read().splitlines():
    sys.argv = ["sdekit-generative", *line.split()]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main()
        except SystemExit as stop:
            status = stop.code
    print(line.split()[0], status or 0)
print("tried", tried)
"""


def _run(code: str, lines: str = "") -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(part or os.getcwd() for part in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", CLOSED + code], input=lines, capture_output=True, text=True, env=environment, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def test_the_library_reaches_for_no_network():
    assert _run(LIBRARY).splitlines()[-1] == "tried []"


@pytest.mark.slow
def test_the_commands_reach_for_no_network(tmp_path):
    run, picture, array = tmp_path / "run", tmp_path / "grid.png", tmp_path / "few.npy"
    np.save(array, sg.Digits().load().images[:4].numpy())
    small = "--set network.channels=8 --set training.batch=8 --set training.warmup=2"
    lines = [
        "--help",
        "recipes",
        f"train digits --out {run} {small} --set training.steps=4 --set training.save_every=2",
        f"sample {run} --images 0-3 --sampler fast --steps 2 --out {picture}",
        f"likelihood {run} --data {array} --tolerance 0.1",
        f"evaluate {run} --metric fid --images 40 --sampler fast --steps 2",
        f"restore {run} --task inpaint --images 2 --steps 2",
    ]
    said = _run(COMMAND, "\n".join(lines)).splitlines()
    assert said[-1] == "tried []"
    assert [line.split()[-1] for line in said[:-1]] == ["0"] * len(lines), said


def test_the_guard_of_these_tests_holds():
    with pytest.raises(Reached), socket.socket() as outside:
        outside.connect(("127.0.0.1", 9))
    with pytest.raises(Reached):
        socket.getaddrinfo("localhost", 80)
    with pytest.raises(Reached):
        socket.create_connection(("localhost", 80), timeout=1)
    ends = socket.socketpair()  # of the machine itself, as processes use
    ends[0].close()
    ends[1].close()
    x = sk.solve(sk.ODE(lambda t, x: -x), torch.ones(2, 1), 0.0, 1.0, solver=sk.RK4(), steps=sk.FixedSteps(2)).x
    assert torch.isfinite(x).all()
