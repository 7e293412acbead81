"""How curves are told apart: by colour, by marker and by dashes, so that print and colour-blind readers lose nothing.

Reference: Okabe, Ito (2008), "Color universal design", for the colours.
"""

from __future__ import annotations

from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", ":")
PEER = "#707070"


def curve(i: int, size: float = 4.5) -> dict[str, Any]:
    """The look of curve i of a plot: no two of the first 21 are alike in colour and dashes, of the first 56 in marker too."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[(i // len(COLOURS)) % len(DASHES)],
        "markersize": size,
        "markerfacecolor": "none" if (i // len(COLOURS)) % 2 else None,
    }
