"""Tables and work–precision plots of the sampler benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.style import PEER, curve

Rows = list[dict[str, Any]]

VP_TARGETS = {10: 9e-3, 20: 1e-3, 50: 3e-5}
FACTOR = 1.5  # by which the best is to lie below DPM-Solver++ 3M on the uniform log-SNR grid, sub-VP and VE
BASELINE = ("DPMSolverPP(3)", "log-SNR")
CURVES = (
    ("DDIM()", "log-SNR"),
    ("EDMHeun(0)", "Karras"),
    ("DPMSolver(3)", "log-SNR"),
    BASELINE,
    ("DEIS(3)", "log-SNR"),
    ("UniPC(3)", "log-SNR"),
    ("AngularAdams(2)", "angle"),
    ("AngularAdams(3)", "angle"),
    ("AngularAdams(3)", "optimal"),
    ("tune", "tuned"),
)


def _number(x: float | None) -> str:
    return "" if x is None or math.isnan(x) else f"{x:.1e}"


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(head)
    rows = [head, ["---"] * len(head), *(list(line) for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _pick(rows: Rows, **wanted: Any) -> Rows:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _at(rows: Rows, budget: int) -> Rows:
    """Rows that stay within a budget and would not within half of it."""
    return [row for row in rows if budget / 2 < row["calls"] <= budget]


def _least(rows: Rows) -> dict[str, Any] | None:
    return min(rows, key=lambda row: row["error"], default=None)


def verdicts(record: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """(what, wanted, found, met) of every target."""
    flow = [row for row in record["rows"] if not row["noisy"] and row["package"] == "sdekit"]
    out = []
    for budget, limit in VP_TARGETS.items():
        best = _least(_at(_pick(flow, process="VP"), budget))
        if best is not None and budget in record["settings"]["size"]["budgets"]:
            found = f"{best['error']:.1e} ({best['sampler']}, {best['grid']})"
            out.append((f"VP, {budget} calls, least median RMSE", f"≤ {limit:.0e}", found, best["error"] <= limit))
    for process in ("SubVP", "VE"):
        for budget in record["settings"]["size"]["budgets"]:
            mine = _pick(flow, process=process)
            best = _least(_at(mine, budget))
            base = _least(_at(_pick(mine, sampler=BASELINE[0], grid=BASELINE[1]), budget))
            if best is not None and base is not None:
                ratio = base["error"] / best["error"]
                found = f"{ratio:.1f} ({base['error']:.1e} / {best['error']:.1e}, {best['sampler']}, {best['grid']})"
                out.append(
                    (f"{process}, {budget} calls, gain on {' '.join(BASELINE)}", f"≥ {FACTOR}", found, ratio >= FACTOR)
                )
    return out


def _flow_tables(record: dict[str, Any]) -> Iterable[str]:
    budgets = record["settings"]["size"]["budgets"]
    flow = [row for row in record["rows"] if not row["noisy"]]
    for process in dict.fromkeys(row["process"] for row in flow):
        mine = _pick(flow, process=process)
        fixed = [row for row in mine if row["grid"] != "adaptive"]
        names = dict.fromkeys((row["package"], row["sampler"], row["grid"]) for row in fixed)
        lines = []
        for package, sampler, grid in names:
            these = _pick(mine, package=package, sampler=sampler, grid=grid)
            errors = [_least(_at(these, budget)) for budget in budgets]
            far = errors[-1]["far"] if errors[-1] else math.nan
            shown = [_number(row["error"]) if row else "" for row in errors]
            lines.append(
                [sampler if package == "sdekit" else f"{package} {sampler}", grid, *shown, f"{100 * far:.1f} %"]
            )
        table = _table(["sampler", "grid", *map(str, budgets), "far, last"], lines)
        yield f"\n### {process}: median RMSE\n\n{table}" + _adaptive(mine, "median RMSE")


def _noisy_tables(record: dict[str, Any]) -> Iterable[str]:
    budgets = record["settings"]["size"]["budgets"]
    noisy = [row for row in record["rows"] if row["noisy"]]
    for process in dict.fromkeys(row["process"] for row in noisy):
        mine, lines = _pick(noisy, process=process), []
        floor = next(row["error"] for row in mine if row["calls"] == 0)
        fixed = [row for row in mine if row["calls"] and row["grid"] != "adaptive"]
        for sampler, grid in dict.fromkeys((row["sampler"], row["grid"]) for row in fixed):
            these = _pick(mine, sampler=sampler, grid=grid)
            cells = []
            for budget in budgets:
                row = _least(_at(these, budget))
                std = "" if row is None or math.isnan(row["std"]) else f" ({100 * row['std']:+.2f} %)"
                cells.append("" if row is None else f"{row['error']:.4f}{std}")
            lines.append([sampler, grid, *cells])
        yield (
            f"\n### {process}, with noise: sliced Wasserstein distance (error of a Gaussian's standard deviation)\n\n"
            f"Two exact samples are {floor:.4f} apart.\n\n"
            + _table(["sampler", "grid", *map(str, budgets)], lines)
            + _adaptive(mine, "distance")
        )


def _adaptive(rows: Rows, what: str) -> str:
    """Samplers with steps of every sample's own: mean calls and error."""
    lines = [[row["sampler"], str(row["calls"]), _number(row["error"])] for row in _pick(rows, grid="adaptive")]
    return "\n" + _table(["adaptive sampler, tolerance", "calls, mean over samples", what], lines) if lines else ""


def bias_table(record: dict[str, Any]) -> str:
    """Relative errors of the standard deviation after predictor–corrector sampling."""
    rows = record["bias"]
    names = list(dict.fromkeys(row["process"] for row in rows))
    lines = []
    for word in dict.fromkeys(row["corrector"] for row in rows):
        cells = [f"{100 * row['error']:+.2f} %" for row in rows if row["corrector"] == word]
        lines.append([word, *cells])
    return _table(["corrector, 1000 steps", *names], lines)


def write_tables(record: dict[str, Any], path: Path) -> str:
    """Write all tables; returns the one of the targets."""
    lines = [(what, wanted, found, "yes" if met else "**no**") for what, wanted, found, met in verdicts(record)]
    targets = _table(["target", "wanted", "measured", "met"], lines)
    facts = record["settings"]
    ends = [
        (name, p["process"], f"{p['sigma at t_max']:.4g}", f"{p['sigma at t_min']:.4g}", _number(facts[_DOUBT][name]))
        for name, p in facts["processes"].items()
    ]
    head = ["", "process", "σ at t_max", "σ at t_min", "uncertainty of the converged solution"]
    size = facts["size"]
    text = (
        f"# Samplers on exact scores\n\nTarget: {facts['target']}. {size['starts']} starts, {size['samples']} samples with "
        "noise. Columns are calls of the score; a method of several calls a step takes as many steps as fit. `far` is the "
        "share of samples that err by more than 0.25. Schedulers of diffusers end at σ = 0 and are judged there, each from "
        "its own start.\n\n"
    )
    parts = [text, _table(head, ends), "\n## Targets\n\n", targets, *_flow_tables(record), *_noisy_tables(record)]
    doubt = 100 * max(row["uncertainty"] for row in record["bias"])
    parts.append(
        f"\n## Bias of correctors\n\nStandard deviation of N(0, 0.5²), relative error (± {doubt:.2f} %):\n\n"
        + bias_table(record)
    )
    path.write_text("".join(parts))
    return targets


_DOUBT = "error of the converged solution"


def draw(record: dict[str, Any], out: Path) -> None:
    """Work–precision plots, one panel a process; of diffusers the best scheduler at each budget."""
    import matplotlib.pyplot as plt

    flow = [row for row in record["rows"] if not row["noisy"]]
    names = list(record["settings"]["processes"])
    figure, panels = plt.subplots(
        2, (len(names) + 1) // 2, figsize=(13, 8.4), sharex=True, sharey=True, layout="constrained"
    )
    axes = list(panels.reshape(-1))[: len(names)]
    for axis, process in zip(axes, names, strict=True):
        mine = _pick(flow, process=process, package="sdekit")
        for i, (sampler, grid) in enumerate(CURVES):
            points = sorted((row["calls"], row["error"]) for row in _pick(mine, sampler=sampler, grid=grid))
            label = sampler if sampler == "tune" else f"{sampler}, {grid}"
            if points:
                axis.loglog(*zip(*points, strict=True), **curve(i), label=label)
        peers = _pick(flow, process=process, package="diffusers")
        best = [_least(_at(peers, budget)) for budget in record["settings"]["size"]["budgets"]]
        points = [(row["calls"], row["error"]) for row in best if row is not None]
        if points:
            axis.loglog(*zip(*points, strict=True), ":", color=PEER, marker="*", ms=8, label="diffusers, best of all")
        if process == "VP":
            axis.plot(*zip(*VP_TARGETS.items(), strict=True), "k_", ms=16, mew=3, label="target")
        axis.set_title(process)
        axis.grid(True, which="major", alpha=0.3)
    for axis in panels[-1]:
        axis.set_xlabel("calls of the score")
    for axis in panels[:, 0]:
        axis.set_ylabel("median RMSE")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(out / "samplers_flow.png", dpi=110)
    plt.close(figure)
    _draw_noisy(record, out, plt)


def _draw_noisy(record: dict[str, Any], out: Path, plt: Any) -> None:
    noisy = [row for row in record["rows"] if row["noisy"]]
    names = list(dict.fromkeys(row["process"] for row in noisy))
    figure, axes = plt.subplots(1, len(names), figsize=(4.6 * len(names), 4.6), sharey=True, layout="constrained")
    shown = (
        ("EulerMaruyama()", "log-SNR"),
        ("DDIM()", "log-SNR"),
        ("ReverseDiffusion()", "uniform"),
        ("ReverseDiffusion() + Langevin(0.16)", "uniform"),
        ("DPMSolverPP(2)", "log-SNR"),
        ("SASolver(3, 4)", "log-SNR"),
        ("SEEDS(2)", "log-SNR"),
        ("AngularAdams(2)", "angle"),
        ("GottaGoFast()", "angle"),
    )
    for axis, process in zip(axes, names, strict=True):
        mine = _pick(noisy, process=process)
        for i, (sampler, grid) in enumerate(shown):
            points = sorted((row["calls"], row["error"]) for row in _pick(mine, sampler=sampler, grid=grid))
            points = [(calls, error) for calls, error in points if error < 10.0]
            if points:
                axis.loglog(*zip(*points, strict=True), **curve(i), label=f"{sampler}, {grid}")
        axis.axhline(
            next(row["error"] for row in mine if row["calls"] == 0), color="k", ls=":", label="two exact samples"
        )
        axis.set_title(process)
        axis.set_xlabel("calls of the score")
        axis.grid(True, which="major", alpha=0.3)
    axes[0].set_ylabel("sliced Wasserstein distance")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(out / "samplers_noise.png", dpi=110)
    plt.close(figure)


# --- what the README shows --------------------------------------------------------------------------------------------

SHOWN = (
    ("`tune`, sampler and grid chosen on other starts", "tune", "tuned"),
    ("`AngularAdams(3)`, `angle_grid`", "AngularAdams(3)", "angle"),
    ("`UniPC(3)`, log-SNR", "UniPC(3)", "log-SNR"),
    ("`DPMSolverPP(3)`, log-SNR", *BASELINE),
    ("`EDMHeun()`, Karras", "EDMHeun(0)", "Karras"),
    ("`DDIM()`, log-SNR", "DDIM()", "log-SNR"),
)
NOISY = (
    ("`AngularAdams(2)`, `angle_grid`", "AngularAdams(2)", "angle"),
    ("`DPMSolverPP(2)`, log-SNR", "DPMSolverPP(2)", "log-SNR"),
    ("`SASolver()`, log-SNR", "SASolver(3, 4)", "log-SNR"),
    ("`SEEDS()`, log-SNR", "SEEDS(2)", "log-SNR"),
    ("`DDIM(1)`, log-SNR", "DDIM()", "log-SNR"),
    ("`EulerMaruyama()`, log-SNR", "EulerMaruyama()", "log-SNR"),
)


def readme(record: dict[str, Any]) -> str:
    """The README's part."""
    size, rows = record["settings"]["size"], record["rows"]
    flow = [row for row in rows if not row["noisy"]]
    met = verdicts(record)
    parts = [
        f"Exact scores of four Gaussians in R¹⁶ (standard deviation 0.25), float64, {size['starts']} starts: median error "
        "against the converged probability flow from the same start. Measured by `python -m benchmarks.samplers`, with every "
        "sampler, grid and process in [benchmarks/results/samplers.md](benchmarks/results/samplers.md). diffusers: the best "
        "of all its schedulers and grids that were tried, each judged from its own start.\n\n"
    ]
    for process in ("VP", "SubVP", "VE"):
        mine = _pick(flow, process=process)
        lines = []
        for words, sampler, grid in SHOWN:
            these = _pick(mine, sampler=sampler, grid=grid, package="sdekit")
            lines.append(
                [words, *(_number((_least(_at(these, n)) or {"error": None})["error"]) for n in size["budgets"])]
            )
        peers = _pick(mine, package="diffusers")
        if peers:
            best = [_least(_at(peers, n)) for n in size["budgets"]]
            lines.append(["diffusers, best", *(_number(row["error"]) if row else "" for row in best)])
        parts.append(_table([f"{process}, calls of the score", *map(str, size["budgets"])], lines) + "\n")
    parts.append(
        '<img src="benchmarks/results/samplers_flow.png" width="98%" alt="error against calls of the score">\n\n'
    )
    noisy, most = [row for row in rows if row["noisy"]], max(size["budgets"])
    lines = []
    for words, sampler, grid in NOISY:
        cells = []
        for process in ("VP", "SubVP", "VE"):
            row = _least(_at(_pick(noisy, process=process, sampler=sampler, grid=grid), most))
            cells.append("" if row is None else f"{100 * row['std']:+.2f} %")
        lines.append([words, *cells])
    parts.append(
        f"Samplers with noise keep moments: error of the standard deviation of a Gaussian of standard deviation 0.25 after "
        f"{most} calls, worked out exactly.\n\n"
    )
    parts.append(_table(["with noise", "VP", "SubVP", "VE"], lines) + "\n")
    doubt = 100 * max(row["uncertainty"] for row in record["bias"])
    parts.append(
        f"The bias of Langevin correctors, on N(0, 0.5²) with 1000 steps of `ReverseDiffusion` and snr 0.16 (± {doubt:.2f} %); "
        'a step of the published size, `compat="song2021"`, widens what it samples:\n\n'
    )
    parts.append(bias_table(record))
    missed = [f"{what}: {found}, wanted {wanted}" for what, wanted, found, fine in met if not fine]
    parts.append(
        "\n" + ("Missed: " + "; ".join(missed) + "." if missed else "All targets that were set beforehand are met.")
    )
    return "".join(parts).strip()
