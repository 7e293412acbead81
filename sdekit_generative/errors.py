"""What a person can get wrong, by name. Each message is one line: what was found, and what to do instead.

The command line prints the message and exits with status 2; `--debug` shows the traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """Something in what was asked for or given, not in the code."""


class DataError(UserError):
    """Images that cannot be read or do not fit together."""


class RecipeError(UserError):
    """A recipe, or a change to one, that does not exist or does not fit."""


class RunError(UserError):
    """A run folder that is missing, in use, or holds something else."""


class CheckpointError(UserError):
    """A checkpoint that is missing, truncated or altered, or that could not be written. The message names the file."""


class TrainingDiverged(UserError):
    """The loss became NaN or infinite. The last checkpoint is untouched."""


class CheckpointWarning(UserWarning):
    """A checkpoint that could not be used was passed over for an older one; the message names both."""


class DataWarning(UserWarning):
    """Images that were left out or converted; the message names them."""


def counted(count: int, thing: str) -> str:
    """A number of things: 1 channel, 3 channels, 10 classes."""
    plural = "es" if thing.endswith("s") else "s"
    return f"{count} {thing}{'' if count == 1 else plural}"
