"""Table and plot of the likelihood benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.style import PEER, curve

Rows = list[dict[str, Any]]

FACTOR = 2.0  # by which SciPy's calls are to exceed sdekit's, at equal error
BITS = 1e-4  # the error that a density may have


def _pick(rows: Rows, **wanted: Any) -> Rows:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _fewest(rows: Rows, error: float, what: str) -> dict[str, Any] | None:
    """The row of fewest calls from which on its solver errs by no more than this: a lucky setting does not count."""
    good = []
    for solver in dict.fromkeys(row["solver"] for row in rows):
        mine = sorted(_pick(rows, solver=solver), key=lambda row: row["calls"], reverse=True)
        for row in mine:
            if row["error"] > error:
                break
            good.append(row)
    return min(good, key=lambda row: row[what], default=None)


def comparisons(record: dict[str, Any]) -> Rows:
    """For every problem: SciPy with the published tolerance, and the fewest calls of the others at no larger error."""
    rows, setting = record["rows"], record["settings"]["published setting"]
    out = []
    for process, law in dict.fromkeys((row["process"], row["law"]) for row in rows):
        mine = _pick(rows, process=process, law=law)
        base = min(_pick(mine, package="SciPy"), key=lambda row: abs(row["setting"] - setting))
        entry = {"process": process, "law": law, "SciPy": base}
        entry["torchdiffeq"] = _fewest(_pick(mine, package="torchdiffeq"), base["error"], "calls")
        entry["sdekit"] = _fewest(_pick(mine, package="sdekit"), base["error"], "calls")
        entry["each"] = _fewest(_pick(mine, package="sdekit"), base["error"], "each")
        best = min(_pick(mine, package="sdekit"), key=lambda row: row["worst"])
        out.append(entry | {"least": best})
    return out


def summary(record: dict[str, Any]) -> str:
    """The comparison at equal error, as a Markdown table."""
    lines = [
        "| process, data | SciPy RK45 at 1e-5 | torchdiffeq dopri5 | sdekit | gain | each sample by itself | gain |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in comparisons(record):
        base, peer, own, each = (entry[key] for key in ("SciPy", "torchdiffeq", "sdekit", "each"))
        cells = [f"{entry['process']}, {entry['law']}", f"{base['calls']} (error {base['error']:.0e})"]
        cells.append("–" if peer is None else f"{peer['calls']}")
        for row, what in ((own, "calls"), (each, "each")):
            cells.append("–" if row is None else f"{row[what]:.0f} ({row['solver']})")
            cells.append("–" if row is None else f"{base['calls'] / row[what]:.1f} ×")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_tables(record: dict[str, Any], path: Path) -> str:
    """Write the report; returns its summary."""
    facts = record["settings"]
    text = [
        "# Densities on exact scores\n\n",
        f"{facts['samples']} points in R^{facts['dimension']}, exact divergence, exact law at t_max as prior. Calls of the "
        "score by the batch, at a mean error in bits per dimension no larger than that of SciPy's RK45 with the published "
        "tolerances, and at all finer settings too; in brackets which solver. A call is a value and its divergence, for which "
        "the published code passes through the network twice. Steps are of every sample's own, and `each sample by itself` is "
        "the mean of what they needed.\n\n",
        summary(record),
        "\n## The smallest error over the tolerances that were tried\n\n",
        "| process, data | largest error of a point, bits/dim | solver, tolerance or steps | calls |\n|---|---|---|---|\n",
    ]
    for entry in comparisons(record):
        row = entry["least"]
        text.append(
            f"| {entry['process']}, {entry['law']} | {row['worst']:.1e} | {row['solver']}, {row['setting']:.2g} | "
            f"{row['calls']} |\n"
        )
    path.write_text("".join(text))
    return summary(record)


def readme(record: dict[str, Any]) -> str:
    """The README's part."""
    facts = record["settings"]
    worst = max(entry["least"]["worst"] for entry in comparisons(record))
    return (
        f"Log-densities on exact scores, {facts['samples']} points in R^{facts['dimension']}: calls of the score (value and "
        "divergence are one) at a mean error in bits/dim no larger than that of SciPy's RK45 with the published code's "
        "tolerances, and at all finer settings too. That code passes through the network twice for one call, which is not in "
        "these figures. Steps are of every sample's own: `each sample by itself` is the mean of what they needed. "
        f"Against the closed form no point errs by more than {worst:.0e} bits/dim at the tightest setting. Measured by "
        "`python -m benchmarks.likelihood`.\n\n"
        + summary(record)
        + '\n<img src="benchmarks/results/likelihood.png" width="98%" alt="error against calls of the score">'
    )


def draw(record: dict[str, Any], out: Path) -> None:
    """Error against calls, a panel for every problem."""
    import matplotlib.pyplot as plt

    problems = list(dict.fromkeys((row["process"], row["law"]) for row in record["rows"]))
    names = list(dict.fromkeys((row["package"], row["solver"]) for row in record["rows"]))
    figure, axes = plt.subplots(
        2, (len(problems) + 1) // 2, figsize=(12, 7.2), sharex=True, sharey=True, layout="constrained"
    )
    # column by column, so that each column is a process
    for axis, (process, law) in zip(axes.T.reshape(-1), problems, strict=False):
        for i, (package, solver) in enumerate(names):
            mine = _pick(record["rows"], process=process, law=law, package=package, solver=solver)
            look = curve(i) if package == "sdekit" else {**curve(i), "color": PEER, "linestyle": ":"}
            points = sorted((row["calls"], max(row["error"], 1e-14)) for row in mine)
            label = f"{package} {solver}"
            axis.loglog(*zip(*points, strict=True), **look, label=label)
        axis.axhline(BITS, color="k", ls=":", lw=1)
        axis.set_title(f"{process}, {law}")
        axis.grid(True, which="major", alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("calls of the score")
    for axis in axes[:, 0]:
        axis.set_ylabel("mean error, bits/dim")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(out / "likelihood.png", dpi=130)
    plt.close(figure)
