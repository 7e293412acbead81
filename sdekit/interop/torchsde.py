"""SDEs that torchsde and sdekit solve for one another; torchsde is not imported.

torchsde writes f(t, y) and g(t, y), y `(B, d)`, with strings for the kind:

    noise_type   "diagonal": g `(B, d)`;  "scalar": `(B, d, 1)`;  "additive" and "general": `(B, d, m)`
    sde_type     "ito" or "stratonovich"

Its times only increase. An SDE whose law runs backward from t = start is therefore given in s = start − t:

    dx = f dt + G dW̄ (t falling)   ⇔   dy = −f(start − s, y) ds + G(start − s, y) dW (s rising)

and the path of such a solve, seen along the direction of travel, is the same in both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Incompatible
from ..protocols import SDE, Calculus, Dense, Diffusion, Direction, Noise, as_time

_NOISE = {"diagonal": Noise.DIAGONAL, "additive": Noise.ADDITIVE, "scalar": Noise.SCALAR, "general": Noise.GENERAL}
_CALCULUS = {"ito": Calculus.ITO, "stratonovich": Calculus.STRATONOVICH}


# --- an SDE of ours there ---------------------------------------------------------------------------


def modules(thing: Any) -> Iterator[nn.Module]:
    """Modules among an SDE's parts, where their parameters can be found."""
    if isinstance(thing, nn.Module):
        yield thing
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for field in dataclasses.fields(thing):
            yield from modules(getattr(thing, field.name, None))


class TorchSDE(nn.Module):
    """An sdekit SDE as torchsde takes one; made by `to_torchsde`."""

    def __init__(
        self, sde: SDE, shape: tuple[int, ...] | None, start: float | None, prior: SDE | None, dense: bool
    ) -> None:
        super().__init__()
        self.sde, self.shape, self.start = sde, shape, start
        self.found = nn.ModuleList(dict.fromkeys((*modules(sde), *modules(prior))))
        self.sde_type = "ito" if sde.calculus is Calculus.ITO else "stratonovich"
        self.noise_type = _noise_type(sde.noise, dense)
        if prior is not None:
            self.prior = prior
            self.h = self._prior_drift

    def _place(self, t: float | Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
        """Time and state as the SDE knows them, and the sign of dt/ds."""
        x = y if self.shape is None else y.reshape(-1, *self.shape)
        time = as_time(t)
        return (time, x, 1.0) if self.start is None else (self.start - time, x, -1.0)

    def f(self, t: float | Tensor, y: Tensor) -> Tensor:
        """The drift `(B, d)`."""
        time, x, sign = self._place(t, y)
        return self.sde.drift(time, x).reshape(y.shape) * sign

    def _prior_drift(self, t: float | Tensor, y: Tensor) -> Tensor:
        time, x, sign = self._place(t, y)
        return self.prior.drift(time, x).reshape(y.shape) * sign

    def g(self, t: float | Tensor, y: Tensor) -> Tensor:
        """The diffusion in the shape that `noise_type` asks for."""
        if self.sde.noise is Noise.NONE:
            return torch.zeros_like(y).unsqueeze(-1)
        time, x, _ = self._place(t, y)
        g = self.sde.diffusion(time, x)
        if isinstance(g, Dense):
            if self.noise_type == "diagonal":
                raise Incompatible("this SDE's diffusion is a Dense matrix: write to_torchsde(sde, dense=True)")
            return g.matrix.expand(*x.shape, g.matrix.shape[-1]).reshape(*y.shape, -1)
        column = g.to(y.dtype).expand_as(x).reshape(y.shape)
        if self.noise_type == "diagonal":
            return column
        return column.unsqueeze(-1) if self.noise_type == "scalar" else torch.diag_embed(column)

    def f_and_g(self, t: float | Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Both."""
        return self.f(t, y), self.g(t, y)


def _noise_type(noise: Noise, dense: bool) -> str:
    """The string for a class of noise; element-wise diffusion is "diagonal", be it a function of time only."""
    if noise in (Noise.ADDITIVE, Noise.DIAGONAL) and not dense:
        return "diagonal"
    return {Noise.NONE: "additive", Noise.ADDITIVE: "additive", Noise.SCALAR: "scalar"}.get(noise, "general")


def to_torchsde(
    sde: SDE,
    shape: tuple[int, ...] | None = None,
    start: float | None = None,
    prior: SDE | None = None,
    dense: bool = False,
) -> TorchSDE:
    """An sdekit SDE for `torchsde.sdeint` and `sdeint_adjoint`: an `nn.Module` with f, g, `noise_type` and `sde_type`.

    shape: of one sample, where the state is not `(B, d)`; torchsde then sees it flattened.
    start: for an SDE that runs BACKWARD, and for an ODE to be solved backward: the time at which the solve begins.
        torchsde's time is then s = start − t, from 0.
    prior: another SDE with the same diffusion; gives h, which torchsde's `logqp=True` asks for.
    dense: whether the diffusion of an ADDITIVE or DIAGONAL SDE is a `Dense` matrix.

    Parameters are those of modules among the SDE's parts; for tensors that a plain function closes over, pass
    `adjoint_params=` to `sdeint_adjoint`.

    Raises Incompatible for a BACKWARD SDE without `start`, and for a FORWARD one with it.
    """
    if sde.direction is Direction.BACKWARD and start is None and sde.noise is not Noise.NONE:
        raise Incompatible(
            "this SDE's law runs backward in time and torchsde's times increase: pass start=, the time at which the "
            "solve begins (t_max for a reversed diffusion); torchsde's time is then s = start − t"
        )
    if sde.direction is Direction.FORWARD and start is not None and sde.noise is not Noise.NONE:
        raise Incompatible("start= is for SDEs that run backward in time; this one's law runs forward. Leave it out")
    return TorchSDE(sde, shape, start, prior, dense)


# --- an SDE of theirs here --------------------------------------------------------------------------


class FromTorchSDE(nn.Module):
    """A torchsde SDE as `solve` takes one; made by `from_torchsde`."""

    direction = Direction.FORWARD

    def __init__(self, sde: Any) -> None:
        super().__init__()
        self.sde = sde
        self.noise, self.calculus = _NOISE[sde.noise_type], _CALCULUS[sde.sde_type]

    def drift(self, t: Tensor, x: Tensor) -> Tensor:
        """f(t, y), with t in the dtype of y as torchsde passes it."""
        t = t.to(x.dtype)
        return self.sde.f(t, x) if hasattr(self.sde, "f") else self.sde.f_and_g(t, x)[0]

    def diffusion(self, t: Tensor, x: Tensor) -> Diffusion:
        """g(t, y), a matrix as `Dense`."""
        t = t.to(x.dtype)
        g = self.sde.g(t, x) if hasattr(self.sde, "g") else self.sde.f_and_g(t, x)[1]
        return g if self.noise is Noise.DIAGONAL else Dense(g)


def from_torchsde(sde: Any) -> FromTorchSDE:
    """A torchsde SDE for `solve`: any object with `noise_type`, `sde_type`, and f and g or f_and_g.

    The state is `(B, d)`. f and g get t 0-d, or `(B, 1)` where samples have times of their own (adaptive steps).

    Raises TypeError for an object that is not such an SDE, ValueError for an unknown noise_type or sde_type.
    """
    for name, known in (("noise_type", _NOISE), ("sde_type", _CALCULUS)):
        if not hasattr(sde, name):
            raise TypeError(f"from_torchsde: {type(sde).__name__} has no `{name}`; it is no torchsde SDE")
        if getattr(sde, name) not in known:
            raise ValueError(f"from_torchsde: {name} must be one of {sorted(known)}, got {getattr(sde, name)!r}")
    if not hasattr(sde, "f_and_g") and not (hasattr(sde, "f") and hasattr(sde, "g")):
        raise TypeError(
            f"from_torchsde: {type(sde).__name__} needs f and g, or f_and_g: a diffusion given only as a product g·v "
            "cannot be evaluated here"
        )
    return FromTorchSDE(sde)
