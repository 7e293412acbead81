"""Independent increments, one for every step: the cheapest path, for solves that ask for each step once.

Step k of sample i has the normals (seed, PATH, i, k). Values at times inside the step agree with its increment and with
one another, whichever of them are asked. Where samples are asked at times of their own, the path inside a step is fixed: it
is the dyadic series (module `dyadic`) whose root is the step and whose root normals are those of the step's increment. That
takes some 60 normals for a value. Where it is known that all samples are asked at the same times, a bridge between the
neighbours already asked takes one; then the path inside a step depends on the times that are asked of it.

For the area A the step is cut into pieces (module `area`), from which W, H and A are joined.
"""

from __future__ import annotations

import bisect

import numpy as np
import torch
from torch import Tensor

from ..counters import NormalPairs, fold, mixed_keys, step_keys
from ..errors import Incompatible
from ..protocols import Increment, Levy, Span, expand
from ..random import Draws, KeyedDraws, Purpose
from . import levy as law
from .area import piece_lengths
from .dyadic import Series

_DEPTH = 60
"""A step has 2⁶⁰ ticks, so that a fraction of it is met to 10⁻¹⁸."""


class FreshIncrements:
    """Increments drawn step by step from `draws`.

    area_rate: where a solver asks for the area A, a step is cut into ⌈area_rate/|h|⌉ pieces; in units of 1/time.
    together: whether all samples are asked at the same times inside a step.
    ahead: whether to draw the normals of some steps at once; for those who ask for a step here and there, False is faster.

    Raises ValueError unless area_rate is positive.
    """

    def __init__(self, draws: Draws, area_rate: float = 1.0, together: bool = False, ahead: bool = True) -> None:
        if not area_rate > 0:
            raise ValueError(f"area_rate: expected a positive number of pieces per 1/|h|, got {area_rate}")
        self.draws, self.area_rate, self.together = draws, area_rate, together
        self._inside: _Inside | None = None
        self._own_keys: tuple[torch.Size, Tensor] | None = None
        self._in_chunks = ahead
        self._ahead: list[tuple[int, tuple[Tensor, ...]]] = []
        self._form: tuple[torch.Size, torch.dtype, torch.device] | None = None

    def __repr__(self) -> str:
        return f"FreshIncrements({self.draws!r})"

    def increment(self, span: Span, like: Tensor, levy: Levy) -> Increment:
        """The increment over the span, shaped like the noise `like`."""
        if levy is Levy.AREA:
            return law.join(*self._pieces(span, like), area=True)
        z = [self._normal(span.index, like, k) for k in range(law.terms(levy))]
        return law.from_normals(z, span.h)

    def part(self, span: Span, inner: Span, whole: Increment, like: Tensor, levy: Levy) -> Increment:
        """The increment from `span.t0` to `inner.t1`, inside the span, given the whole span's."""
        if self.together and levy is not Levy.AREA and inner.t1.ndim == span.t0.ndim == span.t1.ndim == 0:
            if self._inside is None or self._inside.whole is not whole.W:
                keys = step_keys(self._keys(like), span.index)
                maker = self._keyed().maker(like.device, like.dtype)
                self._inside = _Inside(maker, keys, whole, span.h, law.terms(levy))
            start = float(span.t0)
            return self._inside.first((float(inner.t1) - start) / (float(span.t1) - start))
        theta = ((inner.t1 - span.t0) / (span.t1 - span.t0)).reshape(-1)
        keys = step_keys(self._keys(like), span.index)
        if levy is Levy.AREA:
            return self._area_part(span, keys, theta, like)
        return law.selected(_first_part(keys, whole, span.h, theta, law.terms(levy)), levy, like.dtype)

    def _normal(self, step: int | Tensor, like: Tensor, part: int) -> Tensor:
        if isinstance(step, int) and isinstance(self.draws, KeyedDraws):
            form = (like.shape, like.dtype, like.device)
            if form != self._form:
                self._form, self._ahead = form, [(0, ())] * len(law.VARIANCES)
            first, values = self._ahead[part]
            if not 0 <= step - first < len(values):
                wanted = (Purpose.PATH, step, tuple(like.shape), like.dtype, like.device, part)
                made = self.draws.ahead if self._in_chunks else self.draws.pair
                first, values = self._ahead[part] = made(*wanted)
            return values[step - first]
        return self.draws.normal(Purpose.PATH, step, tuple(like.shape), like.dtype, like.device, part)

    def _keyed(self) -> KeyedDraws:
        if not isinstance(self.draws, KeyedDraws):
            raise Incompatible(
                f"a value between two steps needs noise keyed by a seed, and {type(self.draws).__name__} has none: "
                "save at step times only, or pass seed=<integer>"
            )
        return self.draws

    def _keys(self, like: Tensor) -> Tensor:
        draws = self._keyed()
        if self._own_keys is None or self._own_keys[0] != like.shape:
            key = fold(draws.seed, Purpose.BRIDGE)
            self._own_keys = (like.shape, mixed_keys(key, draws.first, like.shape[0], like.device))
        return self._own_keys[1]

    def _pieces(self, span: Span, like: Tensor) -> tuple[Tensor, Increment]:
        """Lengths `(n,)` or `(n, B, 1)` of the pieces of a step, and W and H over them, `(n, B, m)`."""
        law.check_area_noise(like)
        lengths = piece_lengths(span.h, self.area_rate, like)
        step = span.index
        if lengths.ndim > 1 and isinstance(step, int):
            # samples with pieces of their own: only counter-based numbers do not depend on how many there are
            step = torch.full((like.shape[0],), step, dtype=torch.int64, device=like.device)
        wide = like.new_empty((like.shape[0], lengths.shape[0], *like.shape[1:]))
        z = [self._normal(step, wide, k).transpose(0, 1) for k in range(2)]
        return lengths, law.from_normals(z, lengths.reshape(*lengths.shape, *(1,) * (3 - lengths.ndim)))

    def _area_part(self, span: Span, keys: Tensor, theta: Tensor, like: Tensor) -> Increment:
        """The whole pieces before the cut, and the first part of the piece that holds it."""
        lengths, pieces = self._pieces(span, like)
        n, batch = lengths.shape[0], like.shape[0]
        size = lengths.reshape(n, -1).expand(n, batch)
        count = (size > 0).sum(0)
        at = theta.expand(batch) * count
        cut = at.floor().to(torch.int64).minimum(count - 1)
        index = cut.reshape(1, batch, 1).expand(1, batch, like.shape[1])
        piece = Increment(*(x.gather(0, index)[0].to(torch.float64) for x in (pieces.W, pieces.H) if x is not None))
        first = _first_part(step_keys(keys, cut + 1), piece, size[:1].T, at - cut, 2)
        number = torch.arange(n, device=like.device)[:, None]
        covered = size * (at - number).clamp(0.0, 1.0)
        keep, here = (number < cut)[..., None], (number == cut)[..., None]

        def masked(x: Tensor | None, cut_piece: Tensor | None) -> Tensor:
            assert x is not None
            assert cut_piece is not None
            return torch.where(keep, x, torch.where(here, cut_piece.to(x.dtype), 0.0))

        return law.join(covered[..., None], Increment(masked(pieces.W, first.W), masked(pieces.H, first.H)), area=True)


class _Inside:
    """A step cut at the fractions asked so far, each cut drawn from the law of a bridge between its neighbours."""

    def __init__(self, maker: NormalPairs, keys: Tensor, whole: Increment, h: float | Tensor, count: int) -> None:
        self.whole, self._maker, self._keys, self._h, self._count = whole.W, maker, keys, h, count
        self._ends = [0.0, 1.0]
        self._pieces = [whole._replace(halves=None)]

    def first(self, theta: float) -> Increment:
        """The increment up to the fraction theta."""
        place = bisect.bisect_left(self._ends, min(theta, 1.0))
        if place == 0:
            return law.from_normals([torch.zeros_like(self.whole)] * self._count, 0.0)
        if self._ends[place] > theta:
            start, end = self._ends[place - 1 : place + 1]
            parts = law.split(
                (end - start) * self._h, self._pieces[place - 1], (theta - start) / (end - start), self._fresh()
            )
            self._pieces[place - 1 : place] = parts
            self._ends.insert(place, theta)
        found = self._pieces[0]
        for end, width, piece in zip(self._ends[1:place], np.diff(self._ends[1:]), self._pieces[1:place], strict=False):
            found = law.chen(end * self._h, found, float(width) * self._h, piece)
        return found

    def _fresh(self) -> tuple[Tensor, ...]:
        """A normal `(B, *shape)` for each of W, H, K at a cut."""
        shape = self.whole.shape
        keys = step_keys(self._keys, len(self._pieces))
        z = self._maker.entries(keys, self._count * self.whole[0].numel())
        return z.reshape(shape[0], self._count, *shape[1:]).to(self.whole.dtype).unbind(1)


def _first_part(keys: Tensor, whole: Increment, h: float | Tensor, theta: Tensor, count: int) -> Increment:
    """The first fraction theta, 0-d or `(B,)`, of an interval of length |h| under the given keys; float64."""
    w = whole.W
    batch = w.shape[0]
    root = torch.stack([z.reshape(batch, -1) for z in law.to_normals(whole, h, count)]).to(torch.float64)
    series = Series(keys, count, root.shape[-1], _DEPTH, root)
    end = (theta.reshape(() if theta.numel() == 1 else -1) * 2.0**_DEPTH).round().to(torch.int64).clamp(0, 1 << _DEPTH)
    z = series.normals(0, max(1, int(end)) if end.ndim == 0 else end.clamp(min=1)).reshape(count, *w.shape)
    length = expand(end.to(torch.float64) * 2.0**-_DEPTH, w) * abs(h)
    return law.from_normals(list(z), length)
