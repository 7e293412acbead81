"""SDEs, Brownian paths and diffusion trees that torchsde and sdekit use of one another; torchsde is not imported.

torchsde writes f(t, y) and g(t, y), y `(B, d)`, with strings for the kind:

    noise_type   "diagonal": g `(B, d)`;  "scalar": `(B, d, 1)`;  "additive" and "general": `(B, d, m)`
    sde_type     "ito" or "stratonovich"

Its times only increase. An SDE whose law runs backward from t = start is therefore given in s = start − t:

    dx = f dt + G dW̄ (t falling)   ⇔   dy = −f(start − s, y) ds + G(start − s, y) dW (s rising)

and the path of such a solve, seen along the direction of travel, is the same in both.
Over an interval of length h torchsde's paths give W, U = h (W/2 + H) and A.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .. import brownian
from ..brownian.levy import reversed_increment
from ..counters import fold
from ..errors import Incompatible
from ..protocols import SDE, Calculus, Dense, Diffusion, Direction, Increment, Levy, Noise, Span, as_time

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


# --- paths --------------------------------------------------------------------------------------------

_LEVY_NAMES = {Levy.W: "none", Levy.H: "space-time", Levy.K: "space-time", Levy.AREA: "foster"}


class TorchsdeBrownian:
    """A `BrownianTree` of sdekit as the `bm` of torchsde: `bm(ta, tb, return_U, return_A)`.

    start: as in `to_torchsde`: torchsde's time is s = start − t.

    W, U, A have the shapes `(B, m)`, `(B, m)` and `(B, m, m)`; a tree for states of other shapes is flattened.

    Raises TypeError for anything but a `BrownianTree` of sdekit.
    """

    def __init__(self, tree: brownian.BrownianTree, start: float | None = None) -> None:
        if not isinstance(tree, brownian.BrownianTree):
            raise TypeError(f"TorchsdeBrownian wraps an sdekit BrownianTree, got {type(tree).__name__}")
        self.tree, self.start = tree, start
        self.shape = torch.Size((tree.shape[0], torch.Size(tree.shape[1:]).numel()))
        self.dtype, self.device = tree.dtype, tree.device
        self.levy_area_approximation = _LEVY_NAMES[tree.levy]

    def __repr__(self) -> str:
        return f"TorchsdeBrownian({self.tree!r})"

    def size(self) -> torch.Size:
        """The shape of W."""
        return self.shape

    def __call__(
        self, ta: float | Tensor, tb: float | Tensor | None = None, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, ...]:
        """W over [ta, tb], with U and A where asked; W(ta) from the beginning for a single time."""
        first = self.tree.domain[0] if self.start is None else 0.0
        a, b = (first, float(ta)) if tb is None else (float(ta), float(tb))
        i = self.tree(self._time(a), self._time(b))
        w = i.W.reshape(self.shape)
        out: list[Tensor] = [w]
        if return_U:
            out.append((b - a) * (0.5 * w + _given(i.H).reshape(self.shape)))
        if return_A:
            out.append(_given(i.A))
        return out[0] if len(out) == 1 else tuple(out)

    def _time(self, t: float) -> float:
        return _inside(self.tree, t if self.start is None else self.start - t)


def brownian_for_torchsde(tree: brownian.BrownianTree, start: float | None = None) -> TorchsdeBrownian:
    """An sdekit tree as the `bm` of `torchsde.sdeint`, so that both follow one path; see `TorchsdeBrownian`."""
    return TorchsdeBrownian(tree, start)


def _given(part: Tensor | None) -> Tensor:
    if part is None:
        raise ValueError("U needs a tree made with levy=Levy.H or more, A one made with levy=Levy.AREA")
    return part


def _inside(tree: brownian.BrownianTree, t: float) -> float:
    """A time moved into the tree's domain, where float32 rounding has put it a little outside."""
    low, high = tree.domain
    slack = 1e-6 * max(abs(low), abs(high))
    return min(max(t, low), high) if low - slack <= t <= high + slack else t


class TorchsdePath:
    """A Brownian path of torchsde (`BrownianInterval`, `BrownianPath`, `BrownianTree`) as the `path=` of `solve`.

    Solvers that need H ask for `levy_area_approximation="space-time"` or better, those that need A for "foster"; none
    gives K. Steps of each sample's own are asked one by one, so adaptive solves of large batches are slow.

    Raises TypeError for what is no such path.
    """

    def __init__(self, bm: Any) -> None:
        if not callable(bm) or not hasattr(bm, "levy_area_approximation"):
            raise TypeError(f"TorchsdePath takes a torchsde Brownian path, got {type(bm).__name__}")
        self.bm: Any = bm

    def increment(self, span: Span, like: Tensor, levy: Levy) -> Increment:
        """The increment over the span, along the direction of travel."""
        have = {"none": Levy.W, "space-time": Levy.H}.get(self.bm.levy_area_approximation, Levy.AREA)
        if levy is Levy.K or levy > have:
            raise Incompatible(
                f"this solver needs levy=Levy.{levy.name} and the torchsde path has levy_area_approximation="
                f"{self.bm.levy_area_approximation!r}; use BrownianTree(…, levy=Levy.{levy.name}) of sdekit"
            )
        t0, t1 = (cast(list[float], t.detach().reshape(-1).tolist()) for t in (span.t0, span.t1))
        count = max(len(t0), len(t1))
        if count == 1:
            return self._over(t0[0], t1[0], like, levy)
        rows = [self._over(t0[i % len(t0)], t1[i % len(t1)], like, levy) for i in range(count)]
        columns: Any = ([getattr(row, name) for row in rows] for name in "WHKA")
        stacked: Any = (None if c[0] is None else torch.stack([x[i] for i, x in enumerate(c)]) for c in columns)
        return Increment(*stacked)

    def part(self, span: Span, inner: Span, whole: Increment, like: Tensor, levy: Levy) -> Increment:
        """The increment from `span.t0` to `inner.t1`."""
        return self.increment(Span(span.t0, inner.t1, inner.h, span.index), like, levy)

    def _over(self, t0: float, t1: float, like: Tensor, levy: Levy) -> Increment:
        low, high = min(t0, t1), max(t0, t1)
        if levy is Levy.W:
            i = Increment(self.bm(low, high).to(like).reshape(like.shape))
        else:
            w, u, *area = self.bm(low, high, return_U=True, return_A=levy is Levy.AREA)
            h = u / (high - low) - 0.5 * w if high > low else torch.zeros_like(w)
            a = area[0].to(like) if area else None
            i = Increment(w.to(like).reshape(like.shape), h.to(like).reshape(like.shape), None, a)
        return i if t0 <= t1 else reversed_increment(i)


class BrownianTree:
    """What code written for `torchsde.BrownianTree` expects, on a tree that any query order and any length leave alone.

    `tree(ta, tb)` is W(tb) − W(ta), `tree(t)` is w0 + W(t) − W(t0), both shaped like w0. Where w0 has a batch in front,
    sample i depends on (entropy, i) only.

    w1: the value at t1; the path is then the Brownian bridge from w0 to w1.  entropy: the seed, an integer or several;
    None takes one from the operating system.  tol, pool_size, cache_depth, safety: accepted, and not needed.

    Raises TypeError for a w0 that is no tensor.
    """

    def __init__(
        self,
        t0: float | Tensor,
        w0: Tensor,
        t1: float | Tensor | None = None,
        w1: Tensor | None = None,
        entropy: int | Sequence[int] | None = None,
        tol: float = 1e-6,
        pool_size: int = 24,
        cache_depth: int = 9,
        safety: float | None = None,
    ) -> None:
        if not isinstance(w0, Tensor):
            raise TypeError(f"w0: expected a tensor of the shape of the noise, got {type(w0).__name__}")
        end = float(t0) + 1.0 if t1 is None else float(t1)
        seed = secrets.randbits(63) if entropy is None else entropy if isinstance(entropy, int) else fold(*entropy)
        shape = tuple(w0.shape) if w0.ndim > 0 else (1,)
        self.w0, self.shape, self.dtype, self.device = w0, w0.shape, w0.dtype, w0.device
        self.levy_area_approximation = "space-time"
        self.tree = brownian.BrownianTree(
            float(t0), end, shape, seed=int(seed), levy=Levy.H, dtype=w0.dtype, device=w0.device
        )
        # a bridge is the path with a straight line added; H, which is what the line leaves alone, stays
        self._slope = (
            0.0 if w1 is None else (w1 - w0 - self.tree(float(t0), end).W.reshape(w0.shape)) / (end - float(t0))
        )

    def __repr__(self) -> str:
        return f"BrownianTree({self.tree!r})"

    def size(self) -> torch.Size:
        """The shape of W."""
        return self.shape

    def __call__(
        self, t: float | Tensor, tb: float | Tensor | None = None, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The increment over [t, tb], with U where asked; the value at t for a single time."""
        if return_A:
            raise ValueError(
                "this tree has no area A: use brownian_for_torchsde(sdekit.BrownianTree(…, levy=Levy.AREA))"
            )
        a, b = (self.tree.domain[0], float(t)) if tb is None else (float(t), float(tb))
        i = self.tree(_inside(self.tree, a), _inside(self.tree, b))
        w = i.W.reshape(self.shape) + self._slope * (b - a)
        if not return_U:
            return w if tb is not None else w + self.w0
        return w, (b - a) * (0.5 * w + _given(i.H).reshape(self.shape))
