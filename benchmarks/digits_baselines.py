"""What bits/dim on the digits is worth: the same number for a Gaussian and for Gaussian mixtures.

Fits, on the training split, a Gaussian with full covariance and scikit-learn's GaussianMixture with 1 to 50 components
(full covariances), and measures all on the held-out split, with the dequantisation that `bits_per_dim` uses. The best
mixture is chosen on the held-out images, to its advantage.

    python benchmarks/digits_baselines.py

writes benchmarks/results/digits_baselines.json, and the figures that the demo prints into the package.
"""

from __future__ import annotations

import json
import math
import platform
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from sdekit.random import KeyedDraws
from sdekit_generative.data import Dataset, Digits, dequantise

_ROOT = Path(__file__).resolve().parent.parent
_RESULT = _ROOT / "benchmarks" / "results" / "digits_baselines.json"
_RESOURCE = _ROOT / "sdekit_generative" / "data" / "digits_baselines.json"
_COPIES = 4  # dequantisations of every training image: more of the same law, so that no fit learns one draw of it
_FLOORS = (1e-6, 1e-4, 1e-3)  # added to the diagonal of the covariances; scikit-learn's default is the first


def flat(data: Dataset, seed: int) -> np.ndarray:
    """Dequantised images as float64 rows in [0, 1)."""
    return dequantise(data.images, data.levels, KeyedDraws(seed)).flatten(1).double().numpy()


def bits(log_density: np.ndarray, levels: int, dimensions: int) -> tuple[float, float]:
    """(mean, standard error) of bits/dim from natural-log densities over [0, 1)."""
    each = -log_density / (dimensions * math.log(2.0)) + math.log2(levels)
    return float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each)))


def main() -> None:
    training, held_out = Digits().load().split()
    train = np.concatenate([flat(training, seed=1000 + copy) for copy in range(_COPIES)])
    test = flat(held_out, seed=0)
    table: dict[str, dict[str, float]] = {}
    warnings.simplefilter("ignore", ConvergenceWarning)
    for components in range(1, 51):
        tries = []
        for floor in _FLOORS if components > 1 else _FLOORS[:1]:
            mixture = GaussianMixture(components, reg_covar=floor, random_state=0, max_iter=200).fit(train)
            mean, error = bits(mixture.score_samples(test), training.levels, train.shape[1])
            tries.append({"bits_per_dim": mean, "standard_error": error, "reg_covar": floor})
        table[str(components)] = min(tries, key=lambda t: t["bits_per_dim"])
        print(components, table[str(components)], flush=True)
    best = min(table, key=lambda c: table[c]["bits_per_dim"])
    figures = {
        "gaussian": round(table["1"]["bits_per_dim"], 4),
        "gaussian_mixture": round(table[best]["bits_per_dim"], 4),
    }
    result = {
        **figures,
        "best_components": int(best),
        "by_components": table,
        "images": {"train": len(training), "held_out": len(held_out), "dequantised_copies": _COPIES},
        "versions": {
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
            "torch": torch.__version__,
        },
    }
    _RESULT.parent.mkdir(parents=True, exist_ok=True)
    _RESULT.write_text(json.dumps(result, indent=2) + "\n")
    _RESOURCE.write_text(json.dumps(figures, indent=2) + "\n")
    print(figures, "components", best)


if __name__ == "__main__":
    main()
