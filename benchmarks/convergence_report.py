"""Tables and plots from convergence.json; `python -m benchmarks.convergence_report` makes them anew."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

from benchmarks.style import COLOURS, DASHES, MARKERS

Row = dict[str, Any]

MARGIN = 0.15
CLASSES = {
    "NONE": "ODE",
    "ADDITIVE": "additive",
    "DIAGONAL": "diagonal",
    "SCALAR": "scalar",
    "COMMUTATIVE": "commutative",
    "GENERAL": "general",
}
# Okabe, Ito (2008): distinct for all common kinds of colour vision


# --- tables ---------------------------------------------------------------------------------------------


def fits(row: Row) -> Iterable[Row]:
    """The fits of a row: at the end and, where there is one, between steps; exact results have none.

    Weak errors that are all within three standard errors of zero are sampling noise, and have no order either.
    """
    if row["kind"] == "weak" and all(e <= 3 * s for e, s in zip(row["error"], row["standard_error"], strict=True)):
        return []
    return [f for f in (row, row.get("between_steps")) if f is not None and f["order"] is not None]


def lowest(rows: list[Row]) -> Row | None:
    """The lowest of all fits; None if the errors are rounding alone."""
    # of weak fits, the one whose whole interval lies lowest: a wide one says little
    bound = "high" if rows and rows[0]["kind"] == "weak" else "order"
    return min((f for row in rows for f in fits(row)), key=lambda f: f[bound], default=None)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _cell(rows: list[Row]) -> str:
    if not rows:
        return "–"
    claim, fit = _number(rows[0]["claim"]), lowest(rows)
    if fit is None:
        return f"**{claim}** exact"
    interval = "" if rows[0]["noise"] == "NONE" else f" [{fit['low']:.2f}, {fit['high']:.2f}]"
    return f"**{claim}** {fit['order']:.2f}{interval}"


def order_table(rows: list[Row], solvers: list[str]) -> list[str]:
    """One line a solver: its claim and the lowest fit of each class of noise."""
    classes = [c for c in CLASSES if any(r["noise"] == c for r in rows)]
    lines = [f"| solver | {' | '.join(CLASSES[c] for c in classes)} |", "|---" * (len(classes) + 1) + "|"]
    for solver in solvers:
        mine = [r for r in rows if r["solver"] == solver]
        if not mine:
            continue
        lines.append(f"| {solver} | {' | '.join(_cell([r for r in mine if r['noise'] == c]) for c in classes)} |")
    return lines


def shortfalls(rows: list[Row]) -> list[str]:
    """Claims above a fit by more than the margin; a weak one only where sampling error does not excuse it."""
    found = []
    for row in rows:
        for fit in fits(row):
            reached = fit["high"] if row["kind"] == "weak" else fit["order"]
            if reached < row["claim"] - MARGIN:
                place = "" if fit is row else ", between steps"
                where = f"{row['solver']}, {row['kind']} {_number(row['claim'])}, {row['problem']}, {row['direction']}"
                found.append(f"{where}{place}: {fit['order']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]")
    return found


def _evaluations(rows: list[Row]) -> list[str]:
    """Evaluations and normals a step on S8, where columns do not commute."""
    lines = ["| solver, problem S8 | f and G a step | normals a step |", "|---|---|---|"]
    for row in rows:
        if row["noise"] == "GENERAL" and row["problem"].startswith("S8") and row["direction"] == "forward":
            at, normals = row["h"][-1], row["normals_per_step"][-1]
            calls = f"{row['drift_per_step']:.0f} + {row['diffusion_per_step']:.0f}"
            lines.append(f"| {row['solver']} | {calls} | {normals} at h = 2^{math.log2(at):.0f} |")
    return lines


def target_table(targets: list[Row]) -> list[str]:
    """Errors at dt = 2⁻⁷ beside torchsde's."""
    lines = [
        "| problem | solver | rms error | mean error | evaluations | torchsde | rms error | mean error | evaluations |",
        "|---" * 9 + "|",
    ]
    for row in targets:
        sides = [
            f"{s['solver']} | {s['root_mean_square'][-1]:.1e} | {s['error'][-1]:.1e} | {s['evaluations'][-1]}"
            for s in (row["ours"], row["torchsde"])
        ]
        lines.append(f"| {row['problem']} | {' | '.join(sides)} |")
    return lines


def _verdict(short: list[str]) -> list[str]:
    if not short:
        return [f"Every claim was borne out to within {MARGIN}."]
    return ["Claims that were not borne out:", "", *(f"- {line}" for line in short)]


def write_tables(found: Row, path: Path) -> None:
    """The Markdown that README includes."""
    ours = [r for r in found["rows"] if r["library"] == "sdekit"]
    strong = [r for r in ours if r["kind"] == "strong"]
    weak = [r for r in ours if r["kind"] == "weak"]
    lines = [
        "Strong orders: **claimed**, then the lowest fitted over all problems, both directions of time, at the end and "
        "between steps, with its 95 % bootstrap interval. Measured by `python -m benchmarks.convergence`.",
        "",
        *order_table(strong, found["solvers"]),
        "",
        "Fits above a claim come from kind problems, and the lowest hides most of them. SRA methods show order 2 where "
        "the drift is linear (S4, Ornstein–Uhlenbeck): what limits them to 1.5 is the curvature of the drift. "
        "Runge–Kutta methods solve autonomous equations with one motion, or commuting ones, to a higher order than 1.",
        "",
        "<details><summary>Weak orders</summary>",
        "",
        *order_table(weak, found["solvers"]),
        "",
        "</details>",
        "",
        "<details><summary>Work a step with general noise</summary>",
        "",
        *_evaluations(strong),
        "",
        "</details>",
        "",
        "Errors at dt = 2⁻⁷ on the same paths as torchsde, with evaluations of f and G in the whole solve:",
        "",
        *target_table(found["targets"]),
        "",
        *_verdict(shortfalls(ours)),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


# --- plots ----------------------------------------------------------------------------------------------


def draw(found: Row, out: Path) -> None:
    """One plot for each class of noise, and one of error against work."""
    plt.rcParams.update({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "lines.linewidth": 1.2})
    strong = [r for r in found["rows"] if r["kind"] == "strong" and r["direction"] == "forward"]
    for noise, name in CLASSES.items():
        rows = [r for r in strong if r["noise"] == noise]
        if rows:
            title = "ordinary differential equations" if noise == "NONE" else f"{name} noise"
            _draw_class(rows, found["solvers"], title, out / f"convergence_{name.lower()}.png")
    _draw_work(found["targets"], out / "convergence_work.png")


def _twin(problem: str) -> str:
    return problem.removesuffix(" (Stratonovich)")


def _draw_class(rows: list[Row], solvers: list[str], title: str, path: Path) -> None:
    """Error against step size on the problem of the class that most solvers were tried on; a panel for each claim."""
    names = [_twin(r["problem"]) for r in rows if r["depends_on_time"]]
    problem = max(dict.fromkeys(names), key=names.count)
    rows = [r for r in rows if _twin(r["problem"]) == problem]
    claims = sorted({r["claim"] for r in rows if "claim" in r})
    wide = min(3, len(claims))
    high = -(-len(claims) // wide)
    figure, axes = plt.subplots(high, wide, figsize=(3.3 * wide, 4.6 * high), squeeze=False, layout="constrained")
    for axis, claim in zip(axes.flat, claims, strict=False):
        # a peer states no claim here: it stands where its fit is nearest
        mine = [r for r in rows if r.get("claim", min(claims, key=lambda c: abs(c - (_order(r) or c)))) == claim]
        mine.sort(key=lambda r: (r["library"], solvers.index(r["solver"]) if r["solver"] in solvers else 0))
        _draw_panel(axis, mine, claim)
    for axis in axes.flat[len(claims) :]:
        axis.set_visible(False)
    figure.suptitle(f"Strong convergence, {title}: {problem}", fontsize=11)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _order(row: Row) -> float | None:
    return row["order"]


def _draw_panel(axis: Any, rows: list[Row], claim: float) -> None:
    for i, row in enumerate(rows):
        theirs = row["library"] == "torchsde"
        axis.plot(
            row["h"],
            row["error"],
            label=f"torchsde {row['solver']}" if theirs else row["solver"],
            color="#808080" if theirs else COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            # hollow markers of different sizes stay visible where curves coincide
            markersize=4 + 1.5 * (i % 4),
            markerfacecolor="none",
            linestyle=":" if theirs else DASHES[(i // len(COLOURS)) % len(DASHES)],
            zorder=1 if theirs else 2,
        )
    positive = [r for r in rows if min(r["error"]) > 0]
    if positive:
        best = min(positive, key=lambda r: r["error"][-1] / r["h"][-1] ** claim)
        anchor = 0.5 * best["error"][-1] / best["h"][-1] ** claim
        line = [anchor * h**claim for h in best["h"]]
        axis.plot(best["h"], line, color="0.4", linewidth=0.9, label=f"slope {_number(claim)}")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set(title=f"claimed order {_number(claim)}", xlabel="step size h", ylabel="strong error")
    columns = 2 if len(rows) > 4 else 1
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=7.5, ncols=columns, frameon=False)


def _draw_work(targets: list[Row], path: Path) -> None:
    """Error against evaluations beside torchsde, one panel a problem."""
    names = list(dict.fromkeys(row["problem"] for row in targets))
    figure, axes = plt.subplots(1, len(names), figsize=(9.5, 3.6), layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        for i, row in enumerate(r for r in targets if r["problem"] == name):
            for side, filled in (("ours", True), ("torchsde", False)):
                data = row[side]
                axis.loglog(
                    data["evaluations"],
                    data["root_mean_square"],
                    label=data["solver"] if filled else f"torchsde {data['solver']}",
                    color=COLOURS[i],
                    marker=MARKERS[i],
                    linestyle="-" if filled else ":",
                    markerfacecolor=None if filled else "none",
                )
        axis.set(title=name, xlabel="evaluations of f and G", ylabel="root-mean-square error")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.legend(fontsize=8)
    figure.suptitle("Error against work", fontsize=11)
    figure.savefig(path, dpi=160)
    plt.close(figure)


if __name__ == "__main__":
    results = Path(__file__).parent / "results"
    data = json.loads((results / "convergence.json").read_text(encoding="utf-8"))
    write_tables(data, results / "convergence.md")
    draw(data, results)
