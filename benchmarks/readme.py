"""Writes the measured parts of README.md from benchmarks/results: `python -m benchmarks.readme`.

A part stands between `<!-- name:start -->` and `<!-- name:end -->`. A test holds README and results together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import inverse_report, likelihood_report, samplers_report

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def _json(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def _markdown(name: str) -> Callable[[], str]:
    return lambda: (RESULTS / name).read_text(encoding="utf-8").strip()


def timings() -> str:
    """Wall times of the two commands."""
    walk = _json("walkthrough.json")
    return (
        f"On {walk['machine']} the first took {walk['demo_seconds'] / 60:.1f} minutes "
        f"({walk['demo_install_seconds']:.0f} s of them to install), the second {walk['test_seconds'] / 60:.1f}, "
        f"{walk['test_note']}."
    )


def gallery() -> str:
    """Pictures made by the demo."""
    return "\n".join(
        [
            "Digits from the demo's model, by predictor–corrector (left) and by the probability-flow ODE (right):",
            "",
            '<img src="benchmarks/results/samples_pc.png" width="48%" alt="100 digits sampled by predictor–corrector">',
            '<img src="benchmarks/results/samples_ode.png" width="48%" alt="100 digits sampled by the ODE">',
            "",
            "Noise turning into digits (`sdekit-generative film`); beside it half of each digit is seen, and the other half",
            "drawn from the posterior: samples, their mean, and twice their standard deviation (`sdekit-generative restore`):",
            "",
            '<img src="benchmarks/results/film.gif" width="34%" alt="noise turning into 16 digits">',
            '<img src="benchmarks/results/inverse_digits_inpaint.png" width="62%" alt="half a digit, samples of the other '
            'half, their mean and standard deviation">',
            "",
            "Four held-out digits on their way to noise, and noise on its way to digits:",
            "",
            '<img src="benchmarks/results/trajectory.png" width="98%" alt="forward and reverse trajectories">',
            "",
            "Solvers converge at the orders that they claim; each marker is an error against an exact solution:",
            "",
            '<img src="benchmarks/results/convergence_diagonal.png" width="98%" alt="strong error against the step, beside '
            'torchsde">',
        ]
    )


def demo() -> str:
    """The demo's figures."""
    figures = _json("demo.json")
    bits, base, distance = figures["bits_per_dim"], figures["baselines"], figures["frechet"]
    return "\n".join(
        [
            "| held-out digits, 17 grey levels | bits/dim |",
            "|---|---|",
            f"| the demo's model, by the probability-flow ODE | {bits['mean']:.3f} ± {bits['standard_error']:.3f} |",
            f"| best Gaussian mixture of 1–50 components | {base['gaussian_mixture']:.2f} |",
            f"| full-covariance Gaussian | {base['gaussian']:.2f} |",
            "",
            f"Fréchet distance to the training set, in the features of a small digit classifier, of 100 images: "
            f"predictor–corrector {distance['pc']:.2f}, ODE {distance['ode']:.2f}, real held-out digits "
            f"{distance['floor']:.2f}.",
        ]
    )


def samplers() -> str:
    """Samplers on exact scores."""
    return samplers_report.readme(_json("samplers.json"))


def likelihood() -> str:
    """Densities on exact scores."""
    return likelihood_report.readme(_json("likelihood.json"))


def inverse() -> str:
    """Inverse problems against exact posteriors."""
    return inverse_report.readme(RESULTS).strip()


def networks() -> str:
    """Speed of the networks."""
    found = _json("networks.json")
    lines = [
        f"Images a second in batches of {found['networks']['tiny']['batch']} of 32 × 32 ({found['threads']} threads, "
        f"{found['dtype']}); in brackets the time, in times that of its convolutions and attention alone.",
        "",
        "| network | weights | forward | forward and backward | peak MB |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["networks"].items():
        forward, both = row["forward"], row["forward + backward"]
        speeds = (f"{r['images_per_second']:.3g} ({r['over_floor']:.2f})" for r in (forward, both))
        peaks = f"{forward['peak_megabytes']:.0f}, {both['peak_megabytes']:.0f}"
        lines.append(f"| {name} | {row['weights'] / 1e6:.1f}M | {' | '.join(speeds)} | {peaks} |")
    outside = found["networks"]["tiny"]["sampling"]["outside_network"]
    spent = f"Predictor–corrector sampling with `tiny` spends {outside:.1%} of its time outside the network."
    return "\n".join([*lines, "", spent])


def ensemble() -> str:
    """Scaling of ensembles."""
    found = _json("ensemble.json")
    lines = [
        f"{found['problem']}; {found['machine']}.",
        "",
        "| processes | paths | seconds | with quantiles | as many paths for each: seconds |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['processes']} | {row['paths']:,} | {row['strong_seconds']:.2f} ({row['strong_efficiency']:.0%}) | "
        f"{row['strong_seconds_with_quantiles']:.2f} | {row['weak_seconds']:.2f} ({row['weak_efficiency']:.0%}) |"
        for row in found["rows"]
    ]
    same = "the same, bit for bit" if found["paths_bitwise_equal"] else "not the same"
    return "\n".join([*lines, "", f"In brackets the efficiency. The paths of one process and of several are {same}."])


PARTS: dict[str, Callable[[], str]] = {
    "timings": timings,
    "gallery": gallery,
    "orders": _markdown("convergence.md"),
    "samplers": samplers,
    "likelihood": likelihood,
    "speed": _markdown("throughput.md"),
    "adaptive": _markdown("adaptive.md"),
    "inverse": inverse,
    "losses": _markdown("digits_table.md"),
    "networks": networks,
    "ensemble": ensemble,
    "demo": demo,
}


def filled(text: str) -> str:
    """The README with every part written anew."""
    for name, part in PARTS.items():
        pattern = re.compile(rf"(<!-- {name}:start -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"README.md has no part named {name}")
        body = part()
        text = pattern.sub(lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text)
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")
