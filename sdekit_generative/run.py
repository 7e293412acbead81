"""A run folder: what it holds, and the rules that keep it from being lost.

    recipe.json      the recipe, for people
    log.jsonl        one line a step: step, loss, learning rate, norm of the gradient; what was measured, where it was
    checkpoints/     see `training.checkpoint`
    snapshots/       power-function averages, where the recipe asks for them
    samples/         pictures made during training, where the recipe asks for them
    tensorboard/     the log once more, where it was asked for

A folder that holds anything is never written into by a new run. While a run trains it holds a lock on its folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .errors import CheckpointError, CheckpointWarning, RecipeError, RunError
from .files import as_json, replace_file
from .log import Logger, Seal, board, kept, rows, sealed
from .losses import ClassifierLoss
from .model import ScoreModel
from .recipes import Recipe, decode, differences, encode, read
from .training import Checkpoint, Trainer, checkpoint
from .training.ema import combination, power_of
from .training.engine import copy_into
from .training.settings import FREE_TO_CHANGE

_RECIPE, _LOG, _CHECKPOINTS, _LOCK = "recipe.json", "log.jsonl", "checkpoints", ".lock"
_BOARD, SNAPSHOTS = "tensorboard", "snapshots"
_ALL = 1 << 30  # keep every snapshot: the later ones do not replace the earlier


@dataclass(frozen=True)
class Run:
    """A run folder that exists. `Run.create` begins one, `Run.open` finds one."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, recipe: Recipe) -> Run:
        """Begin a run. Raises RunError where the folder holds anything already."""
        check_vacant(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / _RECIPE, as_json(encode(recipe)))
        except OSError as problem:
            raise RunError(f"{folder}: cannot be written to ({problem.strerror or problem})") from None
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run. Raises RunError where there is none."""
        if not folder.is_dir():
            raise RunError(f"{folder}: there is no such run folder")
        if not (folder / _RECIPE).is_file():
            raise RunError(f"{folder}: not a run folder (it has no {_RECIPE})")
        return cls(folder)

    def recipe(self) -> Recipe:
        """The recipe that the run goes on with. Raises RecipeError where the file has been altered."""
        file = self.folder / _RECIPE
        said, made = read(file), self._made_with()
        if made is None:
            return said
        for place, (altered, was) in differences(encode(said), encode(made)).items():
            if place not in FREE_TO_CHANGE:
                raise RecipeError(f"{file}: altered ({place} is {altered}, but {was} in the run's checkpoints)")
        return made

    def _made_with(self) -> Recipe | None:
        """The recipe in the newest checkpoint that says it."""
        for folder in reversed(checkpoint.folders(self.folder / _CHECKPOINTS)):
            with suppress(CheckpointError, RecipeError, KeyError):
                return decode(checkpoint.read_state(folder)["recipe"], Recipe)
        return None

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return bool(checkpoint.folders(self.folder / _CHECKPOINTS))

    def save(self, trainer: Trainer, recipe: Recipe, measure: float | None = None) -> Path:
        """Write a checkpoint of a trainer, with all that is needed to use it without this folder's other files.

        measure: of the averaged weights, where it was taken; the smaller the better.
        All processes of the trainer must save together; the first one writes.
        """
        root, parts = self.folder / _CHECKPOINTS, trainer.checkpoint()
        if not trainer.processes.leads:
            return root
        about = {
            "recipe": encode(recipe),
            "shape": list(trainer.model.shape),
            "levels": trainer.model.levels,
            "images": trainer.fingerprint(),
            "threads": torch.get_num_threads(),
            "processes": trainer.processes.size,
            "torch": torch.__version__,
            "measure": measure,
            "log": sealed(self.folder / _LOG),
        }
        whole = Checkpoint(parts.tensors, {**parts.state, **about})
        return checkpoint.write(root, trainer.steps_done, whole, recipe.training.keep)

    def save_snapshot(self, trainer: Trainer) -> None:
        """Keep the power-function averages of this step, for `reconstruct`. All processes must save together."""
        groups = trainer.snapshot()
        if trainer.processes.leads:
            state = {"updates": trainer.ema.updates, "widths": list(trainer.training.power_ema)}
            checkpoint.write(self.folder / SNAPSHOTS, trainer.steps_done, Checkpoint(groups, state), keep=_ALL)

    def newest(self) -> tuple[Path, Checkpoint]:
        """The newest checkpoint that is whole; warns (CheckpointWarning) where newer ones had to be passed over.

        Raises CheckpointError, with the reason for each, where none can be used.
        """
        place, found, passed_over = checkpoint.newest_whole(self.folder / _CHECKPOINTS)
        for reason in passed_over:
            warnings.warn(f"{reason}; going back to {place.name}", CheckpointWarning, stacklevel=2)
        return place, found

    def best(self) -> tuple[Path, Checkpoint]:
        """The checkpoint of the smallest measure. Raises CheckpointError where none was measured, or it is broken."""
        place = checkpoint.best(self.folder / _CHECKPOINTS)
        if place is None:
            raise CheckpointError(f"{self.folder}: nothing was measured during training; see training.measure_every")
        return place, checkpoint.read(place)

    # --- the log ------------------------------------------------------------------------------------------------------

    def log(self) -> list[dict[str, Any]]:
        """The rows of the log; a last line cut short by an interruption is left out. Raises RunError for a damaged one."""
        return rows(self.folder / _LOG)

    @contextmanager
    def logging(self, after: int, tensorboard: bool = False, seal: Seal | None = None) -> Iterator[Logger]:
        """A logger that goes on after the given step: rows beyond it are of steps that will be done again.

        tensorboard: whether to write the rows for TensorBoard, too. Raises UserError where that is not installed.
        seal: of the rows up to that step, as the checkpoint has it. Raises RunError where they are others.
        """
        replace_file(self.folder / _LOG, kept(self.folder / _LOG, after, seal))
        with ExitStack() as stack:
            scalars = stack.enter_context(board(self.folder / _BOARD, after)) if tensorboard else None
            stream = stack.enter_context((self.folder / _LOG).open("ab", buffering=0))
            yield Logger(stream, scalars)

    @contextmanager
    def training(
        self, first: bool, after: int, tensorboard: bool = False, seal: Seal | None = None
    ) -> Iterator[Logger]:
        """The lock and the log of a run while it trains; processes other than the first have a logger of nothing."""
        if not first:
            yield Logger(None)
            return
        with self.locked(), self.logging(after, tensorboard, seal) as log:
            yield log

    # --- the lock -----------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for this process; the system lets go however it ends. Raises RunError if taken."""
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            yield
            return
        with (self.folder / _LOCK).open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(f"{self.folder}: another process is training this run") from None
            yield


def check_vacant(folder: Path) -> None:
    """Raises RunError unless a new run may begin in the folder: it does not exist, or is empty."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunError(f"{folder}: a file of that name is in the way; choose another --out")
    held = [f.name for f in folder.iterdir() if not f.name.startswith(".writing-")]
    if _RECIPE in held:
        raise RunError(f"{folder}: holds another run; go on with it by --resume, or choose another --out")
    if held:
        raise RunError(f"{folder}: is not empty; choose another --out")


def load(
    path: str | Path,
    device: torch.device | str = "cpu",
    which: Literal["newest", "best"] = "newest",
    average: float | None = None,
) -> ScoreModel:
    """The trained model of a run folder, with the averaged weights, ready to sample.

    which    the newest checkpoint, or the best: the one of the smallest measure during training
    average  width (σ_rel) of a power-function average to put together from the run's snapshots, in place of the usual

    Raises RunError where there is no run of a score, CheckpointError where no checkpoint can be used. Warns
    (CheckpointWarning) where the newest is truncated or altered, and an older one is taken.
    """
    model, is_classifier = _trained(Path(path), which, average)
    if is_classifier:
        raise RunError(f"{path}: a run of a classifier, which cannot be sampled; see load_classifier")
    model.network.to(device).eval().requires_grad_(False)
    return model


def load_classifier(
    path: str | Path,
    device: torch.device | str = "cpu",
    which: Literal["newest", "best"] = "newest",
    guides: ScoreModel | None = None,
) -> nn.Module:
    """The trained classifier of a run, `(x/s, ln σ) → logits`, for `ClassifierGuided`.

    guides: the model that it is for; RunError unless both were trained on images of one shape and range. Raises as `load`
    does.
    """
    model, is_classifier = _trained(Path(path), which, None)
    if not is_classifier:
        raise RunError(f"{path}: a run of a score, and no classifier; see load")
    if guides is not None and (model.shape, model.data_range) != (guides.shape, guides.data_range):
        raise RunError(
            f"{path}: a classifier of images {model.shape} in {_range(model)}, and the model makes {guides.shape} in "
            f"{_range(guides)}; train one with the model's data and data_range"
        )
    return model.network.to(device).eval().requires_grad_(False)


def _range(model: ScoreModel) -> str:
    return f"[{model.data_range.low:g}, {model.data_range.high:g}]"


def _trained(path: Path, which: str, average: float | None) -> tuple[ScoreModel, bool]:
    """(model, whether it is a classifier) of a run."""
    if which not in ("newest", "best"):
        raise ValueError(f'which: expected "newest" or "best", got {which!r}')
    run = Run.open(path)
    place, saved = run.newest() if which == "newest" else run.best()
    try:
        recipe = decode(saved.state["recipe"], Recipe)
        (channels, height, width), levels = saved.state["shape"], saved.state["levels"]
        if type(levels) is not int or not 2 <= levels <= 256:
            raise ValueError(f"levels is {levels!r}")
        model = recipe.build((channels, height, width), levels)
        copy_into(model.network.state_dict(), saved.tensors["model"], "model")  # for what is not averaged
        copy_into(dict(model.network.named_parameters()), saved.tensors["ema"], "ema")
    except (KeyError, TypeError, ValueError, RecipeError) as problem:
        raise CheckpointError(f"{place}: not the checkpoint of a model ({problem!r})") from None
    except CheckpointError as problem:
        raise CheckpointError(f"{place}/{problem}") from None
    if average is not None:
        weights = reconstruct(path, average, saved.state.get("ema_updates"))
        copy_into(dict(model.network.named_parameters()), weights, "power")
    return model, isinstance(recipe.loss, ClassifierLoss)


def reconstruct(path: str | Path, width: float, updates: int | None = None) -> dict[str, Tensor]:
    """A power-function average of any width, put together from the snapshots of a run: tensors by name.

    width    σ_rel of the average wanted, best between or near those that were kept (training.power_ema)
    updates  after how many steps; None for as many as the last snapshot has

    Raises CheckpointError where the run kept no snapshots, or one is broken.
    Reference: Karras et al. (2024), §3.1.
    """
    root = Path(path) / SNAPSHOTS
    found = [checkpoint.read(folder) for folder in checkpoint.folders(root)]
    parts = [(snapshot, power) for snapshot in found for power in snapshot.state["widths"]]
    if not parts:
        raise CheckpointError(f"{root}: the run kept no snapshots; train with --set training.power_ema=0.05,0.1")
    made = [int(snapshot.state["updates"]) for snapshot, _ in parts]
    weights = combination([power_of(w) for _, w in parts], made, power_of(width), updates or max(made))
    groups = [snapshot.tensors[f"power-{w:g}"] for snapshot, w in parts]
    return {
        name: sum(
            (float(a) * group[name].double() for a, group in zip(weights, groups, strict=True)), zero.double() * 0.0
        ).to(zero.dtype)
        for name, zero in groups[0].items()
    }
