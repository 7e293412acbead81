"""Which process and which loss? The digits, one network, the same CPU time for each: bits/dim and Fréchet distance.

    python benchmarks/digits_table.py                 21 runs of 10 CPU-minutes each
    python benchmarks/digits_table.py --minutes 0.5   the same, shorter
    python benchmarks/digits_table.py --only 'VP/*'   some of them

Every run has one thread and as many steps as fit into its CPU time on an idle machine, found by timing the first
steps of all runs before any is trained; all else is the recipe `digits`. Held-out bits/dim as in the demo; Fréchet
distances of 300 samples to the training images, in the features of the digits' classifier, by the probability-flow
ODE (mean of three times 300) and by predictor–corrector with 250 steps. Measuring takes some two minutes a run
besides.

Runs and what was measured of them are kept in runs/digits_table, so that an interrupted benchmark goes on where it was,
and several may be made at a time: --only 'VE/*' here and --only '*VP/*' there.
Writes benchmarks/results/digits_table.json and .md, of all runs that have been measured so far.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import time
from fnmatch import fnmatch
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit.sdes.process import DiffusionProcess
from sdekit.steps import Adaptive
from sdekit_generative.data import Digits
from sdekit_generative.files import as_json, replace_file
from sdekit_generative.likelihood import bits_per_dim
from sdekit_generative.losses import (
    DenoisingLoss,
    FocusedNoiseLevel,
    LikelihoodWeighting,
    Loss,
    NoiseWeighting,
    SlicedLoss,
    UniformNoiseLevel,
    UniformTime,
    edm,
    min_snr,
)
from sdekit_generative.metrics import digit_features, frechet_distance
from sdekit_generative.recipes import DIGITS, Recipe
from sdekit_generative.run import load
from sdekit_generative.samplers import ODE, PC
from sdekit_generative.sampling import draw
from sdekit_generative.train import begin, prepare, resume
from sdekit_generative.training import Processes, Stop

_RESULTS = Path(__file__).resolve().parent / "results"
_TIMED, _GROUPS, _IMAGES = 12, 3, 300

PROCESSES: dict[str, DiffusionProcess] = {
    "VE": VE(0.005, 20.0, t_min=1e-5),  # the largest distance of two digits is 11 in this range
    "VP": VP(t_min=1e-5),
    "sub-VP": SubVP(t_min=1e-5),
}
LOSSES: dict[str, tuple[str, Loss]] = {
    "noise": ("‖ε̂ − z‖², t uniform (the paper's)", DenoisingLoss(NoiseWeighting(), UniformTime())),
    "likelihood": ("likelihood weighting, t uniform", DenoisingLoss(LikelihoodWeighting(), UniformTime())),
    "importance": (
        "likelihood weighting, t by importance",
        DenoisingLoss(LikelihoodWeighting(), UniformNoiseLevel()),
    ),
    "focused": ("likelihood weighting, t focused", DenoisingLoss(LikelihoodWeighting(), FocusedNoiseLevel())),
    "edm": ("EDM's, ln σ normal", edm(data_std=0.75)),
    "min-snr": ("min-SNR, t uniform", min_snr()),
    "sliced": ("sliced, t focused", SlicedLoss(LikelihoodWeighting(), FocusedNoiseLevel())),
}


def recipe_of(process: str, loss: str, steps: int) -> Recipe:
    """The digits' recipe with another process, loss and number of steps."""
    training = dataclasses.replace(DIGITS.training, steps=steps, save_every=max(1, steps // 10))
    return dataclasses.replace(DIGITS, process=PROCESSES[process], loss=LOSSES[loss][1], training=training)


def steps_that_fit(process: str, loss: str, minutes: float) -> int:
    """How many training steps take this much CPU time."""
    trainer, _ = prepare(recipe_of(process, loss, 1000), Processes())
    for _ in range(3):
        trainer.step()
    seconds = []
    for _ in range(_TIMED):
        start = time.process_time()
        trainer.step()
        seconds.append(time.process_time() - start)
    return max(10, round(60.0 * minutes / sorted(seconds)[len(seconds) // 2]))


def planned(state: Path, process: str, loss: str, minutes: float) -> int:
    """The number of steps of a run; from its file, where it was found before."""
    file = state / f"{process}-{loss}.steps.json"
    if not file.exists():
        replace_file(file, as_json({"steps": steps_that_fit(process, loss, minutes)}))
    return json.loads(file.read_bytes())["steps"]


def train(folder: Path, recipe: Recipe) -> tuple[int, float]:
    """(steps, CPU-seconds of this part) of a run that is begun, or gone on with, in the folder."""
    start = time.process_time()
    job = resume(folder, lambda recipe: recipe) if (folder / "recipe.json").exists() else begin(folder, recipe)
    job.train(Stop(), lambda step, loss: None)
    return job.recipe.training.steps, time.process_time() - start


def measure(folder: Path) -> dict[str, Any]:
    """Bits/dim and Fréchet distances of a trained run."""
    model = load(folder)
    training, held_out = Digits().load().split()
    reference = digit_features(training.images)
    bits = bits_per_dim(model, held_out.images, steps=Adaptive(1e-3, 1e-3), seed=0, batch=100)
    figures: dict[str, Any] = {
        "bits_per_dim": bits.mean,
        "standard_error": bits.standard_error,
        "likelihood_evaluations": bits.network_evaluations,
    }
    for name, sampler, groups in (("ode", ODE(), _GROUPS), ("pc", PC(steps=250), 1)):
        samples = draw(model, groups * _IMAGES, sampler, seed=0, batch=_IMAGES)
        distances = [frechet_distance(digit_features(g), reference) for g in samples.images.split(_IMAGES)]
        figures[f"frechet_{name}"] = sum(distances) / groups
        figures[f"frechet_{name}_spread"] = max(distances) - min(distances)
        figures[f"{name}_evaluations"] = samples.network_evaluations
    return figures


def cell(state: Path, process: str, loss: str, minutes: float) -> dict[str, Any]:
    """One line of the table; from its file, where it was made before."""
    file = state / f"{process}-{loss}.json"
    if file.exists():
        return json.loads(file.read_bytes())
    folder = state / f"{process}-{loss}"
    steps, seconds = train(folder, recipe_of(process, loss, planned(state, process, loss, minutes)))
    line = {"process": process, "loss": loss, "steps": steps, "cpu_seconds": seconds, **measure(folder)}
    replace_file(file, as_json(line))
    return line


def floor() -> float:
    """Fréchet distance of as many real held-out digits to the training images."""
    training, held_out = Digits().load().split()
    return frechet_distance(digit_features(held_out.images[:_IMAGES]), digit_features(training.images))


# --- the report -------------------------------------------------------------------------------------------------------


def advice(lines: list[dict[str, Any]]) -> str:
    """What to choose, by these figures, and how far chance may have chosen."""
    likely = min(lines, key=lambda line: line["bits_per_dim"])
    good = min(lines, key=lambda line: line["frechet_ode"])
    # the largest of three normals less the smallest is 1.69 standard deviations on average; the loss that fails is left out
    # by the median
    chance = 2.0 * median(line["frechet_ode_spread"] for line in lines) / 1.69 / math.sqrt(_GROUPS)
    alike = [line for line in lines if line["frechet_ode"] < good["frechet_ode"] + chance]
    near = [line for line in lines if line["bits_per_dim"] < likely["bits_per_dim"] + 2 * likely["standard_error"]]
    both = min(near, key=lambda line: line["frechet_ode"])
    corrected = {p: [line["frechet_pc"] for line in lines if line["process"] == p] for p in PROCESSES}
    by_process = ", ".join(f"{median(found):.2f} for {p}" for p, found in corrected.items() if found)
    return (
        f"Best likelihood: {_name(likely)}, {likely['bits_per_dim']:.3f} bits/dim. "
        f"Best samples by the ODE: {_name(good)}, Fréchet distance {good['frechet_ode']:.2f}; {len(alike)} of "
        f"{len(lines)} are within chance (two standard errors, {chance:.2f}) of it. "
        f"Predictor–corrector in 250 steps gives {by_process} in the median. "
        f"For both, take {_name(both)}: within two standard errors of the best likelihood, "
        f"and the best samples among those."
    )


def _name(line: dict[str, Any]) -> str:
    return f"{line['process']} with {LOSSES[line['loss']][0]}"


def table(found: dict[str, Any]) -> str:
    """The figures as a Markdown table, best ones in bold."""
    lines = found["lines"]
    best = {key: min(line[key] for line in lines) for key in ("bits_per_dim", "frechet_ode", "frechet_pc")}

    def bold(line: dict[str, Any], key: str, text: str) -> str:
        return f"**{text}**" if line[key] == best[key] else text

    rows = [
        f"| {line['process']} | {LOSSES[line['loss']][0]} | {line['steps']} | "
        + bold(line, "bits_per_dim", f"{line['bits_per_dim']:.3f} ± {line['standard_error']:.3f}")
        + " | "
        + bold(line, "frechet_ode", f"{line['frechet_ode']:.2f}")
        + " | "
        + bold(line, "frechet_pc", f"{line['frechet_pc']:.2f}")
        + " |"
        for line in lines
    ]
    return "\n".join(
        [
            "| process | loss | steps | bits/dim | Fréchet, ODE | Fréchet, PC |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"The same network and {found['minutes']:g} CPU-minutes for each; real held-out digits have a Fréchet "
            f"distance of {found['floor']:.2f}. {found['advice']}",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU time of each run")
    parser.add_argument("--only", nargs="*", default=["*"], help="runs as PROCESS/LOSS, * for any")
    parser.add_argument("--fast", action="store_true", help="a hundredth of the time, to see that it works")
    parser.add_argument("--state", type=Path, default=Path("runs/digits_table"))
    arguments = parser.parse_args()
    minutes = arguments.minutes / 100.0 if arguments.fast else arguments.minutes
    torch.set_num_threads(1)
    state = arguments.state / f"{minutes:g}-minutes"
    state.mkdir(parents=True, exist_ok=True)
    everything = [(process, loss) for process in PROCESSES for loss in LOSSES]
    chosen = [(p, k) for p, k in everything if any(fnmatch(f"{p}/{k}", pattern) for pattern in arguments.only)]
    if not chosen:
        parser.error(f"--only: there are {', '.join(f'{p}/{k}' for p, k in everything)}")
    for process, loss in chosen:  # all of them before the first is trained, so that the machine is as idle for each
        planned(state, process, loss, minutes)
    for process, loss in chosen:
        print(json.dumps(cell(state, process, loss, minutes)), flush=True)
    files = [state / f"{process}-{loss}.json" for process, loss in everything]
    lines = [json.loads(file.read_bytes()) for file in files if file.exists()]
    found = {
        "minutes": minutes,
        "floor": floor(),
        "lines": lines,
        "advice": advice(lines),
        "machine": {"torch": torch.__version__, "python": platform.python_version(), "threads": 1},
    }
    print(table(found))
    if not arguments.fast:
        replace_file(_RESULTS / "digits_table.json", as_json(found))
        replace_file(_RESULTS / "digits_table.md", table(found).encode())


if __name__ == "__main__":
    main()
