"""The Inception score: how sure a classifier is of each image, and how many classes it sees among all.

    IS = exp( mean_i KL( p(y | x_i) ‖ p(y) ) ),   p(y) = mean_i p(y | x_i)

between 1 and the number of classes. As published it is the mean over ten splits of the images, with the deviation of the
splits (of a population: divided by their number); a score of fewer images is lower, so give the number with it.

Reference: Salimans et al. (2016), "Improved techniques for training GANs", §4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import checked_features


@dataclass(frozen=True, eq=False)
class InceptionScore:
    """Mean and standard deviation over splits, and each split's score."""

    mean: float
    std: float
    per_split: Tensor


def inception_score(logits: Tensor, splits: int = 10) -> InceptionScore:
    """The score of images with these logits `(N, K)`, in consecutive splits that are equal to within one image.

    Raises ValueError for another shape, fewer images than splits, or logits that are not finite.
    """
    logits = checked_features("logits", logits)
    if splits < 1 or len(logits) < splits:
        raise ValueError(
            f"logits: expected (N, K) with at least one image a split, got {tuple(logits.shape)}, {splits} splits"
        )
    found = torch.stack([_score(part) for part in logits.double().tensor_split(splits)])
    return InceptionScore(float(found.mean()), float(found.std(correction=0)), found)


def _score(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(1)
    log_mean = log_p.logsumexp(0) - torch.tensor(len(logits), dtype=logits.dtype, device=logits.device).log()
    # a class that is impossible for an image adds nothing, whatever its logarithm
    terms = torch.where(log_p.exp() > 0, log_p.exp() * (log_p - log_mean), 0.0)
    return terms.sum(1).mean().exp()
