"""The app that every command registers itself on."""

from __future__ import annotations

from cyclopts import App


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sdekit")
    except PackageNotFoundError:
        return "unknown (not installed)"


app = App(
    name="sdekit-generative",
    help="Score-based generative models of images: train, sample, and measure. `--debug` shows tracebacks.",
    version=_version,
)
