"""`demo`: everything in one go on the bundled digits."""

from __future__ import annotations

from pathlib import Path

from .app import app
from .options import Flag, Machine, blaming, changes, find_device, say
from .train import resume_job, train_job


@app.command
def demo(
    *,
    out: Path = Path("runs/demo"),
    resume: Flag = False,
    steps: int | None = None,
    seed: int | None = None,
    on: Machine = Machine(),
) -> int:
    """Everything in one go on the bundled digits: train, sample in two ways, measure, draw.

    Parameters
    ----------
    out
        Folder for the run and its results. It must not hold anything yet.
    resume
        Go on with an interrupted demo.
    steps
        Training steps. [default: as many as reach the figures in the README]
    seed
        Seed of the training.
    """
    from .. import recipes
    from ..demo import finish
    from ..progress import work_bar
    from ..train import begin
    from ..training import Processes

    asked, device = changes(None, steps=steps, seed=seed), find_device(on.device)
    if resume:
        job = resume_job(out, asked, Processes(device=device))
    else:
        job = begin(out, recipes.override(recipes.DIGITS, asked), device)
    status, seconds = train_job(job, on.threads)
    if status is not None:
        return status
    with blaming(out):
        metrics = finish(job.run, work_bar, seconds, device)
    bits, base, frechet = metrics["bits_per_dim"], metrics["baselines"], metrics["frechet"]
    say(f"held-out bits/dim  {bits['mean']:.3f} ± {bits['standard_error']:.3f}")
    say(f"                   Gaussian {base['gaussian']:.3f}, best Gaussian mixture {base['gaussian_mixture']:.3f}")
    say(f"Fréchet distance   PC {frechet['pc']:.2f}, ODE {frechet['ode']:.2f}, real digits {frechet['floor']:.2f}")
    say(f"pictures and metrics.json are in {out}; next: sdekit-generative sample {out} --images 0-63")
    return 0
