"""Table and plot of throughput.json; `python -m benchmarks.throughput_report` makes them anew."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.style import curve

Row = dict[str, Any]
ORDER = (
    "randn",
    "bare loop",
    "sdekit",
    "sdekit compiled",
    "torchsde",
    "torchsde, dt hint",
    "diffrax, unsafe path",
    "diffrax, tree",
    "torchdiffeq",
    "torchode",
)


def _figure(row: Row) -> str:
    return f"{row['us_per_step']:,.0f}" if row["us_per_step"] >= 100 else f"{row['us_per_step']:.3g}"


def table(report: dict[str, Any]) -> str:
    """µs a step, a line for every problem and size."""
    rows = [row for row in report["rows"] if row["contender"] in ORDER]
    names = [name for name in ORDER if any(row["contender"] == name for row in rows)]
    lines = ["| problem | method | state | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 3)]
    done: set[tuple] = set()
    for row in rows:
        key = (row["problem"], row["solver"], tuple(row["shape"]))
        if key in done:
            continue
        done.add(key)
        own = [r for r in rows if (r["problem"], r["solver"], tuple(r["shape"])) == key and r["steps"] == row["steps"]]
        found = {r["contender"]: r for r in own}
        cells = [_figure(found[name]) if name in found else "–" for name in names]
        size = "×".join(f"{n:,}" for n in row["shape"])
        lines.append(f"| {row['problem']} | {row['solver']} | {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(report: dict[str, Any]) -> str:
    """The table with its circumstances."""
    where = f"{report['device']}, {report['threads']} threads, float32"
    head = f"Microseconds a step, medians of {report['rounds']} rounds ({where}); compilation is not counted."
    saved = [row for row in report["rows"] if row["problem"].startswith("saving")]
    base = {
        (tuple(r["shape"]), "compiled" in r["contender"]): r["us_per_step"] for r in saved if "none" in r["contender"]
    }
    parts = []
    for row in saved:
        if "none" not in row["contender"]:
            ratio = row["us_per_step"] / base[tuple(row["shape"]), "compiled" in row["contender"]]
            size = "×".join(str(n) for n in row["shape"])
            parts.append(f"{row['contender'].removeprefix('sdekit').strip(' ,')} at {size}: {ratio:.2f}")
    stiff = report["stiff_neighbour"]
    tail = [
        f"Cost of 100 saved times in 1,000 steps, against none: {'; '.join(parts)}.",
        f"1,024 easy samples beside a stiff one (adaptive Dopri5) take {stiff['easy_beside_stiff']} evaluations each, "
        f"alone {stiff['easy_alone']}; the stiff one takes {stiff['stiff']}.",
    ]
    return "\n\n".join([head, table(report), *tail])


def draw(report: dict[str, Any], file: Path) -> None:
    """µs a step against size, and seconds against steps."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    rows = [r for r in report["rows"] if r["problem"] == "GBM" and r["solver"] == "Euler"]
    names = [name for name in ORDER if any(r["contender"] == name for r in rows)]
    for i, name in enumerate(names):
        style = {**curve(i), "label": name}
        own: dict[int, Row] = {}
        for row in (r for r in rows if r["contender"] == name):
            own.setdefault(math.prod(row["shape"]), row)
        sizes = sorted(own)
        left.loglog(sizes, [own[n]["us_per_step"] for n in sizes], **style)
        for shape, dash in (([1, 1], ":"), ([1024, 16], "-")):
            mine = {r["steps"]: r for r in rows if r["contender"] == name and r["shape"] == shape}
            if len(mine) > 1:
                steps = sorted(mine)
                seconds = [n * mine[n]["us_per_step"] * 1e-6 for n in steps]
                right.loglog(steps, seconds, **{**style, "linestyle": dash, "label": f"{name}, {shape[0]}×{shape[1]}"})
    left.set(xlabel="numbers in the state", ylabel="µs a step", title="Euler–Maruyama on geometric Brownian motion")
    right.set(xlabel="steps", ylabel="seconds", title="Cost grows linearly with the steps")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    fig.savefig(file, dpi=130)
    plt.close(fig)


def write_all(report: dict[str, Any], out: Path) -> None:
    """JSON, Markdown and PNG."""
    name = "throughput" if report["device"] == "CPU" else f"throughput_{report['device'].replace(' ', '_')}"
    (out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(summary(report) + "\n", encoding="utf-8")
    draw(report, out / f"{name}.png")


if __name__ == "__main__":
    results = Path(__file__).parent / "results"
    write_all(json.loads((results / "throughput.json").read_text(encoding="utf-8")), results)
