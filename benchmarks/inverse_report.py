"""Tables and plots of the benchmark of inverse problems, and the README's section: `python -m benchmarks.inverse_report`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.style import COLOURS, curve

Rows = list[dict[str, Any]]
RESULTS = Path(__file__).parent / "results"
EXACT = "exact samples"
TARGET = 0.03  # of the exact-covariance method on the Gaussian
_FIGURES = ("mean", "covariance", "distance", "ranks")


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(head)
    rows = [head, ["---"] * len(head), *(list(line) for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _pick(rows: Rows, **wanted: Any) -> Rows:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _names(rows: Rows, key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def _rms(rows: Rows, key: str) -> float:
    return math.sqrt(sum(row[key] ** 2 for row in rows) / len(rows))


def verdicts(record: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """(what, wanted, found, met)."""
    what = "Gaussian prior, MMPS to convergence: worst error of the posterior"
    out = []
    for figure in ("mean", "covariance"):
        worst = max(row[figure] for row in record["precise"])
        out.append((f"{what} {figure}", "≤ 3 %", f"{worst:.2%}", worst <= TARGET))
    for prior in _names(record["convergence"], "prior"):
        points = _pick(record["convergence"], prior=prior)
        slope = math.log(points[-1]["mean"] / points[0]["mean"]) / math.log(
            points[-1]["particles"] / points[0]["particles"]
        )
        found = f"{points[0]['mean']:.2f} to {points[-1]['mean']:.3f}, P^{slope:.2f}"
        what = f"{prior}: a particle cloud's error of the mean, {points[0]['particles']} to {points[-1]['particles']} particles"
        out.append((what, "falls as P^−½", found, slope < -0.35))
    return out


def summary(record: dict[str, Any]) -> str:
    """One line a method: RMS over operators and noise levels, a pair of columns for each prior."""
    rows, lines = record["rows"], []
    priors = _names(rows, "prior")
    for method in _names(rows, "method"):
        cells = [method]
        for prior in priors:
            mine = _pick(rows, prior=prior, method=method)
            cells += [f"{_rms(mine, 'mean'):.2f}", f"{_rms(mine, 'covariance'):.2f}", f"{_rms(mine, 'ranks'):.2f}"]
        mine = _pick(rows, method=method)
        calls = max(r["calls"] for r in mine)
        gradients = sum(r["gradients"] for r in mine) / len(mine)
        lines.append([*cells, str(calls) if calls else "", f"{gradients:.0f}" if calls else ""])
    head = ["method", *(f"{p}: {f}" for p in priors for f in ("mean", "covariance", "ranks")), "calls", "gradients"]
    return _table(head, lines)


def write_tables(record: dict[str, Any], path: Path) -> str:
    """Write all tables; returns the one of the targets."""
    targets = _table(
        ["target", "wanted", "measured", "met"],
        [(what, wanted, found, "yes" if met else "**no**") for what, wanted, found, met in verdicts(record)],
    )
    parts = [
        "# Inverse problems against exact posteriors\n\nErrors of the posterior mean and sliced Wasserstein distances are in "
        "units of the posterior's standard deviation, those of the covariance relative to it; ranks are total variation "
        "distances from uniform.\n\n## Targets\n\n",
        targets,
        "\n## All problems, root mean square\n\n",
        summary(record),
    ]
    rows = record["rows"]
    for prior in _names(rows, "prior"):
        for operator in _names(rows, "operator"):
            for noise in _names(rows, "noise"):
                mine = _pick(rows, prior=prior, operator=operator, noise=noise)
                lines = [
                    [
                        r["method"],
                        *(f"{r[f]:.3f}" for f in _FIGURES),
                        str(r["calls"]),
                        str(r["gradients"]),
                        f"{r['seconds']:.1f}",
                    ]
                    for r in mine
                ]
                head = ["method", *_FIGURES, "calls", "gradients", "seconds"]
                if not mine:
                    continue
                parts.append(f"\n## {prior}, {operator}, σ_y = {noise}\n\n" + _table(head, lines))
    path.write_text("".join(parts))
    return targets


def draw(record: dict[str, Any], out: Path) -> None:
    """The three plots."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    _draw_errors(record, out / "inverse_errors.png", plt)
    _draw_convergence(record, out / "inverse_particles.png", plt)
    _draw_ranks(record, out / "inverse_ranks.png", plt)


def _draw_errors(record: dict[str, Any], file: Path, plt: Any) -> None:
    rows = record["rows"]
    methods, priors = _names(rows, "method"), _names(rows, "prior")
    figure, axes = plt.subplots(1, 2 * len(priors), figsize=(15, 5.2), sharey=True, layout="constrained")
    operators = _names(rows, "operator")
    for column, (prior, figure_name) in enumerate((p, f) for p in priors for f in ("mean", "covariance")):
        axis = axes[column]
        for look, operator in zip(map(curve, range(len(operators))), operators, strict=True):
            for noise, face in zip(_names(rows, "noise"), ("none", look["color"]), strict=False):
                mine = _pick(rows, prior=prior, operator=operator, noise=noise)
                at = [methods.index(r["method"]) + 0.12 * (operators.index(operator) - 1.5) for r in mine]
                label = f"{operator}, σ_y = {noise}"
                axis.plot(
                    [r[figure_name] for r in mine],
                    at,
                    **{**look, "linestyle": "", "markerfacecolor": face},
                    label=label,
                )
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(plt.NullFormatter())
        axis.set_yticks(range(len(methods)), methods)
        axis.set_title(f"{prior}: {figure_name}", fontsize=10)
        axis.grid(True, which="major", alpha=0.3)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def _draw_convergence(record: dict[str, Any], file: Path, plt: Any) -> None:
    figure, axis = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
    particles = _names(record["convergence"], "particles")
    for colour, prior in zip(COLOURS, _names(record["convergence"], "prior"), strict=False):
        points = _pick(record["convergence"], prior=prior)
        axis.loglog(particles, [p["mean"] for p in points], "o-", color=colour, label=f"{prior}: mean")
        axis.loglog(particles, [p["covariance"] for p in points], "s--", color=colour, label=f"{prior}: covariance")
    first = record["convergence"][0]
    ends = (first["particles"], particles[-1])
    axis.loglog(ends, [first["mean"] * math.sqrt(ends[0] / p) for p in ends], "k:", label="P^−½")
    axis.set_xlabel("particles P")
    axis.set_ylabel("relative error of one cloud")
    axis.grid(True, which="major", alpha=0.3)
    axis.legend(fontsize=8, frameon=False)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def _draw_ranks(record: dict[str, Any], file: Path, plt: Any) -> None:
    rows = _pick(record["rows"], operator="inpaint half", noise=0.3)
    methods, priors = _names(rows, "method"), _names(rows, "prior")
    figure, axes = plt.subplots(
        len(priors), len(methods), figsize=(1.55 * len(methods), 1.9 * len(priors)), sharey=True, layout="constrained"
    )
    for line, prior in zip(axes, priors, strict=True):
        for axis, method in zip(line, methods, strict=True):
            shares = _pick(rows, prior=prior, method=method)[0]["histogram"]
            axis.bar(range(len(shares)), [s * len(shares) for s in shares], width=1.0, color=COLOURS[0])
            axis.axhline(1.0, color="k", lw=0.8, ls=":")
            axis.set_ylim(0.0, 3.0)
            axis.set_xticks([])
            if prior == priors[0]:
                axis.set_title(method, fontsize=7)
        line[0].set_ylabel(prior, fontsize=8)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def readme(results: Path) -> str:
    """The README's section."""
    record = json.loads((results / "inverse.json").read_text())
    digits = results / "inverse_digits.json"
    words = ("no", "one", "two", "three", "four")
    counts = {key + "s": words[len(_names(record["rows"], key))] for key in ("operator", "noise")}
    parts = [_INTRODUCTION.format(**counts), summary(record), _AFTER]
    if digits.exists():
        parts.append(_digits(json.loads(digits.read_text())))
    return "\n".join(parts)


_INTRODUCTION = """\
One unconditional model, any observation. Which method is right, and by how much? With Gaussian and Gaussian-mixture
priors the posterior is known in closed form. Below, the error of the posterior mean (in posterior standard deviations), the
relative error of its covariance, and the miscalibration of ranks (0 is perfect), root mean square over {operators} operators
and {noises} noise levels; calls of the score and derivatives of it, for one sample in 100 steps.
"""

_AFTER = """
`MMPS` uses the covariance the model itself knows, and is exact for Gaussian data; the particle filter is exact for any
data as particles grow. Cheap methods pay in bias, most of all where what is missing hangs on what is seen.

<img src="benchmarks/results/inverse_particles.png" width="45%" alt="errors of the particle filter against its size">
"""


def _digits(record: dict[str, Any]) -> str:
    names = {"inpaint": "half the image", "sr": "4× fewer pixels", "cs": "25 % compressed sensing"}
    lines = [
        [
            names[task],
            f"**{r['psnr_mean']:.2f}**",
            f"{r['psnr_gaussian']:.2f}",
            f"+{r['gain']:.2f} ± {r['gain_standard_error']:.2f}",
            f"{r['psnr_sample']:.2f}",
            f"{r['residual']:.3f} (σ_y = {r['noise']:g})",
            f"{r['spread']:.3f}",
            str(r["images"]),
        ]
        for task, r in record["tasks"].items()
    ]
    head = [
        "observed",
        "mean of 32 samples, dB",
        "Gaussian, dB",
        "gain, dB",
        "one sample, dB",
        "residual",
        "spread",
        "images",
    ]
    return (
        "\nOn held-out digits, PSNR against that of the posterior mean of the full-covariance Gaussian fitted to the training "
        "images, the best linear estimate; samples agree with the observation up to its noise, and differ from one another:"
        "\n\n"
        + _table(head, lines)
        + "\nHalf a digit is seen; samples of the whole, their mean and twice their standard "
        'deviation:\n\n<img src="benchmarks/results/inverse_digits_inpaint.png" width="85%" '
        'alt="half a digit, samples of the other half, their mean and standard deviation">\n'
    )


def main() -> None:
    """Tables, plots and the README's section from the results there are."""
    record = json.loads((RESULTS / "inverse.json").read_text())
    write_tables(record, RESULTS / "inverse.md")
    draw(record, RESULTS)
    print(readme(RESULTS))


if __name__ == "__main__":
    main()
