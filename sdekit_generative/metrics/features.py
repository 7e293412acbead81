"""Feature networks: what turns images into vectors that distances are measured between.

    network = load_inception("pt_inception-2015-12-05.pth")      # the network of FID, from a file on this machine
    network = FeatureModule(my_module, "my features")            # any module: floats in [0, 1] → features (N, F)
    network = DigitFeatures()                                    # the bundled classifier of the digits

Every network says what it is by a name and a fingerprint of its weights, which travel with all that is computed from it:
figures of different networks cannot be compared.

Images are uint8 levels `(N, C, H, W)` with their number of levels, as data sets and samples are kept, so that generated
and real images pass through the same rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import Tensor, nn

from sdekit.processes import whole

from ..data import shown
from ..data.dataset import check_images
from ..data.digits import LEVELS
from ..errors import DataError, UserError
from ..pth import read_pth
from .classifier import as_input, pretrained
from .inception import Inception, Resize


@dataclass(frozen=True, eq=False)
class Features:
    """Of N images: features float32 `(N, F)`, and logits `(N, K)` where the network classifies."""

    features: Tensor
    logits: Tensor | None = None


class FeatureNetwork(Protocol):
    """What metrics need of a network."""

    @property
    def about(self) -> Mapping[str, str]:
        """Its name, its SHA-256, and how it resizes: what must agree where features are compared."""
        ...

    def __call__(self, images: Tensor, levels: int) -> Features:
        """Features of uint8 levels `(N, C, H, W)`, of which there are `levels`."""
        ...


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of a module's tensors, by name. Where they are split over processes, all must ask together."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(whole(tensor).cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class FeatureModule:
    """Any module as a feature network.

    module  called with float32 images in [0, 1] `(N, C, H, W)`; gives features `(N, F)`, or a pair of them and logits
    name    what to call it in results

    Raises TypeError where it gives something else.
    """

    def __init__(self, module: nn.Module, name: str = "", resize: str = "none") -> None:
        self.module = module.eval()
        self._about = {"network": name or type(module).__name__, "sha256": fingerprint(module), "resize": resize}

    @property
    def about(self) -> Mapping[str, str]:
        return self._about

    @torch.no_grad()
    def __call__(self, images: Tensor, levels: int) -> Features:
        check_images(images)
        found: Any = self.module(self._enter(images, levels))
        pair = found if isinstance(found, tuple) else (found, None)
        if len(pair) != 2 or not isinstance(pair[0], Tensor) or pair[0].ndim != 2 or len(pair[0]) != len(images):
            raise TypeError(
                f"{self._about['network']}: expected features ({len(images)}, F), or a pair of them and logits, "
                f"got {getattr(found, 'shape', type(found).__name__)}"
            )
        return Features(pair[0].float(), None if pair[1] is None else pair[1].float())

    def _enter(self, images: Tensor, levels: int) -> Tensor:
        """What the module takes, on its device."""
        held = next(self.module.parameters(), next(self.module.buffers(), images))
        return shown(images.to(held.device), levels)


class InceptionFeatures(FeatureModule):
    """The network of FID. Grey images are shown to it as colour images without colour."""

    def __init__(self, network: Inception) -> None:
        super().__init__(network, "inception-2015-12-05", network.resize)

    def _enter(self, images: Tensor, levels: int) -> Tensor:
        if images.shape[1] not in (1, 3):
            raise DataError(f"images: Inception takes 1 or 3 channels, got {images.shape[1]}")
        return 255.0 * super()._enter(images, levels).expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class DigitFeatures:
    """The bundled classifier of the digits: features `(N, 32)`, logits of the ten digits."""

    about: Mapping[str, str] = field(default_factory=lambda: _about_digits())

    def __call__(self, images: Tensor, levels: int) -> Features:
        check_images(images)
        if tuple(images.shape[1:]) != (1, 8, 8) or levels != LEVELS:
            raise DataError(
                f"images of shape {tuple(images.shape[1:])} with {levels} levels are not digits (1, 8, 8) with {LEVELS}; "
                f"give a feature network, e.g. --features pt_inception-2015-12-05.pth"
            )
        network = pretrained()
        features = network.features(as_input(images.cpu()))
        return Features(features, network.classes(features))


def _about_digits() -> Mapping[str, str]:
    return {"network": "digit-classifier", "sha256": fingerprint(pretrained()), "resize": "none"}


# --- weights --------------------------------------------------------------------------------------------------------------

_PREFIXES = ("module.", "model.", "inception.")
_IGNORED = "num_batches_tracked"  # counts of training, which some files have and others not


def load_inception(file: str | Path, resize: Resize = "tf1", device: torch.device | str = "cpu") -> InceptionFeatures:
    """The network of FID with the weights of a .pth (a state dict; no code in it is run) or .safetensors file.

    Raises UserError that names the file and what is wrong with it.
    """
    path = Path(file)
    state = _unprefixed(read_weights(path))
    network = Inception(resize)
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(_IGNORED)}
    given = {name: tensor for name, tensor in state.items() if not name.endswith(_IGNORED)}
    for name in wanted:
        if name not in given:
            raise UserError(f"{path}: not the weights of FID's Inception (there is no {name})")
        if given[name].shape != wanted[name].shape:
            raise UserError(
                f"{path}: not the weights of FID's Inception ({name} is {tuple(given[name].shape)}, not "
                f"{tuple(wanted[name].shape)}; those of ImageNet's 1,000 classes are another network)"
            )
        if not bool(torch.isfinite(given[name]).all()):
            raise UserError(f"{path}: {name} holds numbers that are not finite")
    extra = sorted(set(given) - set(wanted))
    if extra:
        raise UserError(f"{path}: not the weights of FID's Inception (it also has {extra[0]})")
    network.load_state_dict(given, strict=False)
    return InceptionFeatures(network.to(device))


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a file, by its ending. Raises UserError where it cannot be read, or is not one."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give the weights of the feature network, .pth or .safetensors")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = read_pth(path)
    except Exception as problem:  # unpickling a file that is none raises whatever its bytes come to
        raise UserError(f"{path}: cannot be read as weights ({' '.join(str(problem).split())[:150]})") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: expected a state dict, tensors by name")
    return state


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
