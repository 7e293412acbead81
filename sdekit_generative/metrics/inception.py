"""The feature network of FID: Inception v3 as TensorFlow published it on 2015-12-05, with weights from a local file.

Its 2,048 features are the means of the last block's maps; its 1,008 logits are of ImageNet's classes. It differs from
Inception v3 elsewhere: padding does not count in the means of its pools, the last block takes a maximum there, and the
batch norms' ε is 0.001. Tensors are named as in the file that PyTorch users know as pt_inception-2015-12-05.

Images are resized to 299 × 299 by bilinear interpolation without antialiasing. Where the pixels of the large image lie is
a convention, and changes FID in the third digit (a of size n, A of size 299):

    "tf1"     pixel i of A is at i n/299 of a, as in the TensorFlow graph of the published figures; the edge repeats
    "centre"  pixel i of A is at (i + ½) n/299 − ½, as PyTorch and the package pytorch-fid have it

and the network sees (v − 128)/128 of values v = 0 … 255 for "tf1", v/127.5 − 1 for "centre".

Reference: Szegedy et al. (2016), arXiv 1512.00567, table 1; Heusel et al. (2017), arXiv 1706.08500, §4.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES, CLASSES, SIZE = 2048, 1008, 299
Resize = Literal["tf1", "centre"]
Pair = tuple[int, int]


class Convolution(nn.Module):
    """Convolution, batch norm with fixed statistics, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Pair, stride: int = 1, padding: Pair = (0, 0)) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


# A block is drawn as its branches, joined in this order. A branch is a sequence of steps: (name, channels, kernel), where
# a kernel of 3 is 3 × 3, (1, 7) one row of seven; "mean", "max" pool over 3 × 3 with stride 1; "half" is a maximum over
# 3 × 3 with stride 2. A step that is a list splits: its members see the same input and are joined.
_SEVEN = ((1, 7), (7, 1))


def _block_a(pool: int) -> list[list]:
    return [
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
        ["mean", ("branch_pool", pool, 1)],
    ]


def _block_c(middle: int) -> list[list]:
    row, column = _SEVEN
    return [
        [("branch1x1", 192, 1)],
        [("branch7x7_1", middle, 1), ("branch7x7_2", middle, row), ("branch7x7_3", 192, column)],
        [
            ("branch7x7dbl_1", middle, 1),
            ("branch7x7dbl_2", middle, column),
            ("branch7x7dbl_3", middle, row),
            ("branch7x7dbl_4", middle, column),
            ("branch7x7dbl_5", 192, row),
        ],
        ["mean", ("branch_pool", 192, 1)],
    ]


def _block_e(pool: str) -> list[list]:
    return [
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))]],
        [
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            [("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))],
        ],
        [pool, ("branch_pool", 192, 1)],
    ]


_BLOCKS: dict[str, list[list]] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": [
        [("branch3x3", 384, 3, 2)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)],
        ["half"],
    ],
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": [
        [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
        [
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, 3, 2),
        ],
        ["half"],
    ],
    "Mixed_7b": _block_e("mean"),
    "Mixed_7c": _block_e("max"),
}


class Block(nn.Module):
    """Parallel branches, joined along the channels."""

    def __init__(self, inputs: int, branches: list[list]) -> None:
        super().__init__()
        self._branches = branches
        self.outputs = sum(self._add(inputs, branch) for branch in branches)

    def _add(self, channels: int, steps: list) -> int:
        """Make the convolutions of a branch; returns its number of channels."""
        for step in steps:
            if isinstance(step, list):
                channels = sum(self._add(channels, [member]) for member in step)
            elif isinstance(step, tuple):
                name, outputs, kernel, *stride = step
                size = kernel if isinstance(kernel, tuple) else (kernel, kernel)
                # a step that halves the image has no padding, all others keep its size
                padding = (0, 0) if stride else (size[0] // 2, size[1] // 2)
                self.add_module(name, Convolution(channels, outputs, size, *stride, padding=padding))
                channels = outputs
        return channels

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._run(x, branch) for branch in self._branches], 1)

    def _run(self, x: Tensor, steps: list) -> Tensor:
        for step in steps:
            if isinstance(step, list):
                x = torch.cat([self._run(x, [member]) for member in step], 1)
            elif isinstance(step, tuple):
                x = self.get_submodule(step[0])(x)
            elif step == "mean":
                x = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
            else:
                x = F.max_pool2d(x, 3, stride=2) if step == "half" else F.max_pool2d(x, 3, stride=1, padding=1)
        return x


class Inception(nn.Module):
    """The network: values 0 … 255 `(N, 3, H, W)` → features `(N, 2048)` and logits `(N, 1008)`.

    The logits are without the last layer's bias, as the Inception score was published; `fc.bias` is held and not used.
    """

    def __init__(self, resize: Resize = "tf1") -> None:
        super().__init__()
        if resize not in ("tf1", "centre"):
            raise ValueError(f"resize: expected 'tf1' or 'centre', got {resize!r}")
        self.resize: Resize = resize
        self.Conv2d_1a_3x3 = Convolution(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, (3, 3))
        self.Conv2d_2b_3x3 = Convolution(32, 64, (3, 3), padding=(1, 1))
        self.Conv2d_3b_1x1 = Convolution(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = Convolution(80, 192, (3, 3))
        channels = 192
        for name, branches in _BLOCKS.items():
            block = Block(channels, branches)
            self.add_module(name, block)
            channels = block.outputs
        self.fc = nn.Linear(channels, CLASSES)
        self.eval().requires_grad_(False)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(resized(values, self.resize))
        return features, features @ self.fc.weight.T

    def features(self, x: Tensor) -> Tensor:
        """Of images that have the size and the range that the network takes."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = F.max_pool2d(x, 3, stride=2)
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def resized(values: Tensor, convention: Resize) -> Tensor:
    """Values 0 … 255 `(N, C, H, W)` as the network takes them: 299 × 299, about −1 … 1."""
    if convention == "centre":
        found = F.interpolate(values, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        return found / 127.5 - 1.0
    return (_along(_along(values, 2), 3) - 128.0) / 128.0


def _along(values: Tensor, dim: int) -> Tensor:
    """Linear interpolation along one dimension, pixel i at i n/299."""
    n = values.shape[dim]
    place = torch.arange(SIZE, dtype=torch.float64, device=values.device) * (n / SIZE)
    low = place.floor().long().clamp_max(n - 1)
    share = (place - low).to(values.dtype).reshape(-1, *(1,) * (values.ndim - 1 - dim))
    left, right = values.index_select(dim, low), values.index_select(dim, (low + 1).clamp_max(n - 1))
    return left + (right - left) * share
