"""Speed and memory of the networks: `python -m benchmarks.networks [--fast] [--threads N] [--device cuda] [--compile]`.

For each network, forward alone and forward with backward:

    seconds    best of several calls; images/s
    floor      the time of its convolutions and attention alone, replayed one after the other on tensors of the same
               sizes and memory layouts
    peak MB    most bytes of tensors alive at once, weights included (on CUDA, as the allocator counts)

and for predictor–corrector sampling with it, the share of time spent outside the network. Everything measured of a
network is measured in turns, so that whatever else the machine does weighs on all figures alike.

`tiny` is NCSN++ with 64 channels and 2 blocks a level at 32 × 32, 10.1M weights; `cifar10` the published 62.8M.
Writes networks.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from sdekit.sdes.diffusion import VE
from sdekit_generative.data import DataRange
from sdekit_generative.model import ScoreModel, Song2021
from sdekit_generative.networks import DDPMConfig, DDPMppConfig, NCSNppConfig, NetworkConfig
from sdekit_generative.samplers import PC
from sdekit_generative.sampling import draw

RESULTS = Path(__file__).parent / "results"
SHAPE = (3, 32, 32)
NETWORKS: dict[str, NetworkConfig] = {
    "tiny": NCSNppConfig(channels=64, blocks=2, dropout=0.0, centered=False),
    "tiny checkpointed": NCSNppConfig(channels=64, blocks=2, dropout=0.0, centered=False, checkpoint=True),
    "cifar10": NCSNppConfig(dropout=0.0, centered=False),
    "cifar10 DDPM++": DDPMppConfig(dropout=0.0),
    "cifar10 DDPM": DDPMConfig(dropout=0.0),
}
_COUNTED = ("aten.convolution", "attention", "aten.mkldnn_convolution", "aten.cudnn_convolution")


class Recorder(TorchDispatchMode):
    """Keeps every call of a convolution or of attention, forwards and backwards, and the most bytes alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []
        self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if any(name in str(func) for name in _COUNTED):
            like = tree_map(_like, (args, kwargs))
            self.calls.append(lambda: func(*like[0], **like[1]))
        self.count(tree_leaves(out))
        return out

    def count(self, values: Iterable[object]) -> None:
        """Take note of tensors, until they die."""
        for value in values:
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                key = storage._cdata
                if key not in self._alive:
                    self._alive[key] = storage.nbytes()
                    weakref.finalize(storage, self._alive.pop, key, None)
        self.peak = max(self.peak, sum(self._alive.values()))


def _like(value: object) -> object:
    # small tensors may hold numbers that matter (masks, seeds), and weigh nothing
    return torch.empty_like(value).normal_() if isinstance(value, Tensor) and value.is_floating_point() else value


def timed(calls: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Best seconds of each, in turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats + 1):  # the first turn warms up, and never is the best
        for name, call in calls.items():
            _wait(device)
            start = time.perf_counter()
            call()
            _wait(device)
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def replayed(calls: list[Callable[[], object]]) -> Callable[[], None]:
    """All calls, one after the other."""

    def run() -> None:
        with torch.no_grad():
            for call in calls:
                call()

    return run


def measure(config: NetworkConfig, batch: int, repeats: int, args: argparse.Namespace) -> dict[str, Any]:
    """All figures of one network."""
    device = torch.device(args.device)
    torch.manual_seed(0)
    network = config.build(SHAPE).to(device).eval()
    x, c = torch.rand(batch, *SHAPE, device=device), torch.linspace(-4.0, 3.5, batch, device=device)
    precision = None if args.dtype == "float32" else torch.bfloat16

    def evaluate(module: Callable[..., Tensor] = network) -> Tensor:
        with torch.autocast(device.type, precision, enabled=precision is not None):
            return module(x, c)

    def forward(module: Callable[..., Tensor] = network) -> None:
        with torch.no_grad():
            evaluate(module)

    def both(module: Callable[..., Tensor] = network) -> None:
        network.zero_grad(set_to_none=True)
        evaluate(module).float().square().mean().backward()

    calls: dict[str, Callable[[], object]] = {"forward": forward, "forward + backward": both}
    if args.compile:
        compiled = torch.compile(network)
        calls |= {
            "forward, compiled": lambda: forward(compiled),
            "forward + backward, compiled": lambda: both(compiled),
        }
    found: dict[str, Any] = {"weights": sum(p.numel() for p in network.parameters()), "batch": batch}
    for name, call in calls.items():
        if "compiled" in name:
            seconds = timed({name: call}, repeats, device)
            found[name] = {"seconds": seconds[name], "images_per_second": batch / seconds[name]}
            continue
        record, peak = observe(network, call, device)
        seconds = timed({name: call, "floor": replayed(record.calls)}, repeats, device)
        found[name] = {
            "seconds": seconds[name],
            "images_per_second": batch / seconds[name],
            "peak_megabytes": peak,
            "floor_seconds": seconds["floor"],
            "over_floor": seconds[name] / seconds["floor"],
        }
    return found


def observe(network: nn.Module, call: Callable[[], object], device: torch.device) -> tuple[Recorder, float]:
    """What one call does, and its peak in megabytes."""
    network.zero_grad(set_to_none=True)
    recorder = Recorder()
    recorder.count(network.state_dict().values())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with recorder:
        call()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else recorder.peak
    return recorder, peak / 1e6


class _Clocked(nn.Module):
    """A network that counts the seconds spent in it."""

    def __init__(self, inner: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.inner, self.device, self.seconds = inner, device, 0.0

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        _wait(self.device)
        start = time.perf_counter()
        out = self.inner(x, c)
        _wait(self.device)
        self.seconds += time.perf_counter() - start
        return out


def sampling(config: NetworkConfig, batch: int, steps: int, device: torch.device) -> dict[str, float]:
    """Predictor–corrector sampling: images/s, and the share of time outside the network."""
    network = _Clocked(config.build(SHAPE).to(device).eval(), device)
    model = ScoreModel(network, VE(), Song2021(), DataRange(0.0, 1.0), SHAPE, 256)
    draw(model, batch, PC(steps=1), seed=0)
    network.seconds = 0.0
    start = time.perf_counter()
    draw(model, batch, PC(steps=steps), seed=0)
    whole = time.perf_counter() - start
    return {"steps": steps, "seconds": whole, "outside_network": 1.0 - network.seconds / whole}


def main() -> None:
    """Measure, print and write networks.json."""
    parser = argparse.ArgumentParser(description="Speed and memory of the networks.")
    parser.add_argument("--fast", action="store_true", help="the smallest network only, a few calls")
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS), help="which networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="compiled as well")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    repeats = 3 if args.fast else 10
    names = args.only or (["tiny"] if args.fast else list(NETWORKS))
    record: dict[str, Any] = {
        "machine": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or os.uname().machine,
        "threads": args.threads,
        "torch": torch.__version__,
        "dtype": args.dtype,
        "networks": {},
    }
    for name in names:
        found = measure(NETWORKS[name], args.batch, repeats, args)
        if name == "tiny":
            found["sampling"] = sampling(NETWORKS[name], args.batch, 3 if args.fast else 10, device)
        record["networks"][name] = found
        print(name, json.dumps(found, indent=1))
    if not args.fast:
        args.out.mkdir(parents=True, exist_ok=True)
        suffix = "" if device.type == "cpu" else f"_{device.type}"
        (args.out / f"networks{suffix}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
