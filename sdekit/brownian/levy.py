"""The algebra of (W, H, K, A): laws, joining, splitting, reversal. No other module holds a formula of it.

Over an interval of length h with centre c, the white noise dW is seen through its first Legendre coefficients:

    W = ∫ dW        H = −(1/h) ∫ (r − c) dW        K = (1/2h²) ∫ ((r − c)² − h²/12) dW

which are the quantities of `Increment`, integrated by parts. Divided by their standard deviations √h, √(h/12) and
√(h/720) they are independent standard normals z = (w, η, κ). Hence joining two intervals is a matrix with orthonormal
rows, and splitting one is the orthogonal matrix that completes it. Signs follow the direction of travel, and lengths
are positive: a formula uses |h|.

Reference: Foster, Lyons, Oberhauser (2020), SIAM J. Numer. Anal. 58(3), definitions 3.3 to 3.6 and theorem 5.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import check_dtype
from ..arguments import check_shape as check_shape_argument
from ..errors import Incompatible
from ..protocols import Increment, Levy, broadcast, expand, match

VARIANCES = (1.0, 12.0, 720.0)
"""h / variance of W, H and K."""


def terms(levy: Levy) -> int:
    """How many of (W, H, K) a level needs; the area is built from W and H."""
    return (1, 2, 3, 2)[levy]


def std(h: float | Tensor, term: int, like: Tensor) -> float | Tensor:
    """Standard deviation of W (term 0), H (1) or K (2) over a length |h|, ready to multiply `like`."""
    if isinstance(h, Tensor):
        return match((h.abs() / VARIANCES[term]).sqrt(), like)
    return math.sqrt(abs(h) / VARIANCES[term])


def from_normals(z: Sequence[Tensor], h: float | Tensor) -> Increment:
    """The increment over a length |h| whose standard normals are z = (w), (w, η) or (w, η, κ)."""
    return Increment(*(x * std(h, k, x) for k, x in enumerate(z)))


def to_normals(i: Increment, h: float | Tensor, count: int) -> list[Tensor]:
    """The first `count` standard normals of an increment over a length |h| > 0."""
    found: list[Tensor] = []
    for k, (x, name) in enumerate(zip((i.W, i.H, i.K)[:count], "WHK", strict=False)):
        if x is None:
            raise ValueError(f"the increment has no {name}: ask for it with a higher `levy`")
        found.append(x / std(h, k, x))
    return found


def reversed_increment(i: Increment) -> Increment:
    """The same path traversed backwards: W → −W, H → H, K → −K, A → −A."""
    return Increment(-i.W, i.H, None if i.K is None else -i.K, None if i.A is None else -i.A)


def ordered_sum(x: Tensor) -> Tensor:
    """Sum over the first dimension by halving: the order depends on the places alone, so no sample feels the others."""
    size = 1 << max(0, len(x) - 1).bit_length()
    if size == 1:
        return x.sum(0)
    size //= 2
    head, tail = x[:size].clone(), x[size:]
    head[: len(tail)] += tail
    while size > 1:
        size //= 2
        head = head[:size].add_(head[size:])
    return head[0]


def _centres(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Total length of consecutive intervals, and their centres measured from the centre of the whole."""
    total = lengths.sum(0)
    return total, lengths.cumsum(0) - 0.5 * lengths - 0.5 * total


def join(lengths: Tensor, pieces: Increment, area: bool = False) -> Increment:
    """One increment from consecutive ones by Chen's relation, exact for W, H and K, and for A where the pieces have it.

    lengths: (n,), or (n, B, 1, …, 1) where samples differ; zeros are allowed.  pieces: tensors `(n, B, …)`.
    area: build A `(B, m, m)` from pieces `(n, B, m)` that have no A, each giving its conditional mean

        E[A_jk | W, H] = H_j W_k − W_j H_k,

    whose mean-square error is Σ hᵢ²/12.
    """
    w = pieces.W
    lengths = lengths.abs().reshape(*lengths.shape, *(1,) * (w.ndim - lengths.ndim))
    total, centres = _centres(lengths.to(torch.float64))
    safe = torch.where(total > 0, total, 1.0).to(w.dtype)
    size, at = (lengths / torch.where(total > 0, total, 1.0)).to(w.dtype), (centres / safe).to(w.dtype)
    h = k = None
    if pieces.H is not None:
        h = ordered_sum(size * pieces.H - at * w)
        if pieces.K is not None:
            k = ordered_sum(size**2 * pieces.K - at * size * pieces.H + (0.5 * at**2 + (size**2 - 1.0) / 24.0) * w)
    return Increment(ordered_sum(w), h, k, _area(pieces) if area or pieces.A is not None else None)


def selected(i: Increment, levy: Levy, dtype: torch.dtype) -> Increment:
    """What a level asks for, in the given dtype."""
    asked = (i.H, None, i.A) if levy is Levy.AREA else (i.H, i.K)[: terms(levy) - 1]
    return Increment(i.W.to(dtype), *(None if x is None else x.to(dtype) for x in asked))


def where(mask: Tensor, a: Increment, b: Increment) -> Increment:
    """Sample by sample, a where the mask `(B,)` is set, else b."""
    pairs = ((getattr(a, name), getattr(b, name)) for name in ("H", "K", "A"))
    more = (None if x is None else torch.where(expand(mask, x), x, y) for x, y in pairs)
    return Increment(torch.where(expand(mask, a.W), a.W, b.W), *more)


def check_request(maker: str, shape: object, levy: object, dtype: object) -> None:
    """Raise unless a path can be made of noise of this shape, level and dtype."""
    check_shape_argument(f"{maker}: shape", shape)
    check_dtype(f"{maker}: dtype", dtype)
    if not isinstance(levy, Levy):
        raise TypeError(f"{maker}: levy must be a member of sdekit.Levy, such as Levy.H, got {levy!r}")


def check_level(held: Levy, asked: Levy, maker: str) -> None:
    """Raise where a path that carries `held` cannot give what is `asked`."""
    if terms(asked) > terms(held):
        raise Incompatible(
            f"this Brownian path carries levy=Levy.{held.name} and Levy.{asked.name} is needed: "
            f"make it with {maker}(…, levy=Levy.{asked.name})"
        )


def check_shape(shape: tuple[int, ...], like: Tensor) -> None:
    """Raise where the noise has another shape than the path."""
    if tuple(like.shape) != tuple(shape):
        raise Incompatible(
            f"this Brownian path has noise of shape {tuple(shape)} and the SDE needs {tuple(like.shape)}: "
            f"make it with shape={tuple(like.shape)}"
        )


def check_area_noise(like: Tensor) -> None:
    """Raise unless noise `like` is `(B, m)`, which alone has an area."""
    if like.ndim != 2:
        raise Incompatible(
            f"the area A is defined for m Brownian motions, noise of shape (B, m), and this has {tuple(like.shape)}: "
            "give the SDE a Dense diffusion, or choose a solver that needs no area"
        )


def _area(pieces: Increment) -> Tensor:
    """Chen's relation for A: Σ Aᵢ + ½ Σ_{i<j} (Wᵢ ⊗ Wⱼ − Wⱼ ⊗ Wᵢ)."""
    w = pieces.W
    check_area_noise(w.new_empty(w.shape[1:]))
    left = 0.5 * (w.cumsum(0) - w)
    if pieces.A is None:
        if pieces.H is None:
            raise ValueError("the area needs the H of every piece: ask for the pieces with levy=Levy.H")
        left = left + pieces.H
    j, k = torch.triu_indices(w.shape[-1], w.shape[-1], 1, device=w.device)
    pairs = ordered_sum(left[..., j] * w[..., k] - left[..., k] * w[..., j])
    area = w.new_zeros((*w.shape[1:], w.shape[-1]))
    area[:, j, k], area[:, k, j] = pairs, -pairs
    return area if pieces.A is None else area + ordered_sum(pieces.A)


def chen(h1: float | Tensor, i1: Increment, h2: float | Tensor, i2: Increment) -> Increment:
    """The increment over an interval from those over its first part (length |h1|) and its second (|h2|)."""
    first, second = (torch.as_tensor(h, dtype=torch.float64, device=i1.W.device) for h in (h1, h2))
    pairs = ((getattr(i1, name), getattr(i2, name)) for name in ("H", "K", "A"))
    more = (None if a is None or b is None else torch.stack((a, b)) for a, b in pairs)
    return join(torch.stack(broadcast(first, second)), Increment(torch.stack((i1.W, i2.W)), *more))


def _rows(theta: Tensor, count: int) -> Tensor:
    """`(count, 2 count, *theta.shape)`: the normals of the whole from those of its parts, at the fraction theta."""
    a, b = theta, 1.0 - theta
    ra, rb = a.sqrt(), b.sqrt()
    o = torch.zeros_like(a)
    r3, r5, r15 = math.sqrt(3.0), math.sqrt(5.0), math.sqrt(15.0)
    d = r5 * (b - a)
    rows = (
        ((ra, o, o), (rb, o, o)),
        ((r3 * b * ra, a * ra, o), (-r3 * a * rb, b * rb, o)),
        ((d * b * ra, r15 * b * a * ra, a * a * ra), (-d * a * rb, -r15 * a * b * rb, b * b * rb)),
    )
    return torch.stack([torch.stack((*first[:count], *second[:count])) for first, second in rows[:count]])


def split_matrix(theta: Tensor, count: int) -> Tensor:
    """Orthogonal `(2n, 2n, *theta.shape)`, n = count: (normals of the whole, n fresh ones) to those of both parts.

    Its first n columns are the rows that join the parts; Householder reflections complete them.
    """
    rows, n = _rows(theta, count), 2 * count
    matrix = torch.eye(n, dtype=theta.dtype, device=theta.device).reshape(n, n, *(1,) * theta.ndim)
    matrix = matrix.expand(n, n, *theta.shape)
    for j in range(count):
        x = (matrix * rows[j][:, None]).sum(0)
        sign = torch.where(x[j] < 0, -1.0, 1.0)
        v = x.clone()
        v[j] = v[j] + sign
        projected = (matrix * v[None]).sum(1) * (2.0 / (v * v).sum(0))
        matrix = -sign * (matrix - projected[:, None] * v[None])
    return matrix


def split(
    h: float | Tensor, whole: Increment, theta: float | Tensor, fresh: Sequence[Tensor]
) -> tuple[Increment, Increment]:
    """Both parts of an interval cut at the fraction theta ∈ (0, 1), drawn from their law given the whole.

    fresh: one, two or three tensors of standard normals; so many of (W, H, K) are split.
    theta: a float, or `(B, 1, …, 1)`.
    """
    count, w = len(fresh), whole.W
    if not (bool(((theta > 0) & (theta < 1)).all()) if isinstance(theta, Tensor) else 0 < theta < 1):
        raise ValueError(f"theta: expected fractions strictly between 0 and 1, got {theta}")
    if count == 1:
        first = w * match(theta, w) + fresh[0] * std(theta * (1.0 - theta) * h, 0, w)
        return Increment(first), Increment(w - first)
    cut = torch.as_tensor(theta, dtype=torch.float64, device=w.device)
    matrix = split_matrix(cut, count).to(w.dtype)
    z = (*to_normals(whole, h, count), *fresh)
    out = [sum((matrix[r, c] * x for c, x in enumerate(z)), torch.zeros_like(w)) for r in range(2 * count)]
    return from_normals(out[:count], cut * h), from_normals(out[count:], (1.0 - cut) * h)


def midpoint(count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """How fresh normals ξ enter the halves of an interval: (d, e) with z_half[j] = … ± d_j ξ_j − e_{j−1} ξ_{j−1}.

    The upper sign is the first half's. The dependence on the whole follows from orthogonality and is never needed.
    """
    root = math.sqrt(0.5)
    free = (0.5 * root, 0.25 * root, root)
    bound = (0.5 * math.sqrt(3.0) * root, 0.25 * math.sqrt(15.0) * root)
    return (*free[: count - 1], root), bound[: count - 1]
