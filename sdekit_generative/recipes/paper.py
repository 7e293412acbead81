"""The configurations of Song et al. (2021): their networks, processes, losses and schedules of training.

    cifar10-{ncsnpp,ddpmpp}-{ve,vp,subvp}[-deep][-discrete]       32 × 32; sub-VP in continuous time only
    cifar10-ddpm-{vp,subvp}[-discrete]                            the network of Ho et al. (2020)
    celeba-64[-discrete]                                          64 × 64, of the central 140 pixels
    {lsun-bedroom,lsun-church,ffhq,celebahq}-256                  NCSN++, VE
    {lsun-bedroom,lsun-church,celebahq}-256-ddpm                  DDPM, VP, discrete
    {ffhq,celebahq}-1024                                          NCSN++, VE
    {cifar10,celeba-64,lsun-bedroom-128}-ncsnv2                   the network before it, VE, discrete

VE works on images in [0, 1], which the networks centre themselves, VP and sub-VP on images in [−1, 1]. Where the images
are is to be said by data.path.

Reference: Song et al. (2021), appendices G and H, and the configurations published with it; Ho, Jain, Abbeel (2020);
Song, Ermon (2020), arXiv 2006.09011, table 2 (NCSNv2).
"""

from __future__ import annotations

from dataclasses import replace

from sdekit.sdes.diffusion import VE, VP, SubVP
from sdekit.sdes.process import DiffusionProcess

from ..data import Cifar10, DataRange, Folder
from ..losses import ScoreMatching
from ..model import Song2021
from ..networks import DDPMConfig, DDPMppConfig, NCSNppConfig, NCSNv2Config
from ..training import Training
from .families import Source
from .recipe import Recipe

_UNCENTRED, _CENTRED = DataRange(0.0, 1.0), DataRange(-1.0, 1.0)
_EPSILON = 1e-5  # the time at which training ends


def _training(batch: int, steps: int, ema: float, rate: float = 2e-4, save_every: int = 10_000) -> Training:
    """The published schedule. Times are independent, as there; "stratified" makes gradients less noisy."""
    return Training(
        steps=steps,
        batch=batch,
        learning_rate=rate,
        warmup=5000,
        ema=ema,
        save_every=save_every,
        times="independent",
        flip=True,
        measure_every=50_000,
        sample_every=50_000,
    )


def _recipe(
    data: Source,
    process: DiffusionProcess,
    network: NCSNppConfig | NCSNv2Config,
    training: Training,
    levels: int | None,
    reduce_mean: bool,
) -> Recipe:
    """levels: of discrete training, None in continuous time, where the network's are the steps of the samplers."""
    return Recipe(
        data=data,
        process=process,
        data_range=_UNCENTRED if isinstance(process, VE) else _CENTRED,
        parametrisation=Song2021(continuous=levels is None, steps=network.levels if levels is None else levels),
        network=network,
        loss=ScoreMatching(reduce_mean=reduce_mean, levels=levels),
        training=training,
    )


def _suited(network: NCSNppConfig, process: DiffusionProcess, discrete: bool) -> NCSNppConfig:
    """The network with the embedding and the scaling of its output that go with the process."""
    if not isinstance(process, VE):
        return replace(network, embedding="positional", scale_by_sigma=False, centered=True)
    return replace(
        network,
        embedding="positional" if discrete else "fourier",
        scale_by_sigma=True,
        centered=False,
        sigma_min=process.sigma_min,
        sigma_max=process.sigma_max,
    )


# --- CIFAR-10 ---------------------------------------------------------------------------------------------------------

_PROCESSES: dict[str, DiffusionProcess] = {
    "ve": VE(0.01, 50.0, t_min=_EPSILON),
    "vp": VP(t_min=_EPSILON),
    "subvp": SubVP(t_min=_EPSILON),
}


def _cifar10(network: NCSNppConfig, process: DiffusionProcess, discrete: bool, deep: bool = False) -> Recipe:
    ve = isinstance(process, VE)
    training = _training(128, 950_000 if deep else 1_300_000, ema=0.999 if ve else 0.9999)
    suited = _suited(replace(network, blocks=8) if deep else network, process, discrete)
    return _recipe(Cifar10(), process, suited, training, 1000 if discrete else None, reduce_mean=not ve)


def cifar10() -> dict[str, Recipe]:
    """All recipes of CIFAR-10 by name."""
    found: dict[str, Recipe] = {}
    for kind, network in (("ncsnpp", NCSNppConfig()), ("ddpmpp", DDPMppConfig()), ("ddpm", DDPMConfig())):
        for name, process in _PROCESSES.items():
            for deep in (False, True):
                for discrete in (False, True):
                    missing = (discrete and name == "subvp") or (kind == "ddpm" and (deep or name == "ve"))
                    if not missing:
                        full = f"cifar10-{kind}-{name}{'-deep' * deep}{'-discrete' * discrete}"
                        found[full] = _cifar10(network, process, discrete, deep)
    return found


# --- larger images ----------------------------------------------------------------------------------------------------

_SIGMA_MAX = {"lsun-bedroom": 378.0, "lsun-church": 380.0, "ffhq": 348.0, "celebahq": 348.0}
_NETWORK_256 = NCSNppConfig(
    multipliers=(1, 1, 2, 2, 2, 2, 2),
    blocks=2,
    dropout=0.0,
    progressive="output_skip",
    progressive_input="input_skip",
    levels=2000,
)
_NETWORK_1024 = replace(_NETWORK_256, channels=16, multipliers=(1, 2, 4, 8, 16, 32, 32, 32), blocks=1)


def _celeba(discrete: bool) -> Recipe:
    process = VE(0.01, 90.0, t_min=_EPSILON)
    data, training = Folder(size=64, crop=140), _training(128, 1_300_000, ema=0.999)
    network = _suited(NCSNppConfig(), process, discrete)
    return _recipe(data, process, network, training, 1000 if discrete else None, reduce_mean=False)


def _large(name: str) -> Recipe:
    process = VE(0.01, _SIGMA_MAX[name], t_min=_EPSILON)
    training = _training(64, 2_400_000, ema=0.999, save_every=5000)
    return _recipe(Folder(size=256), process, _suited(_NETWORK_256, process, False), training, None, reduce_mean=False)


def _huge(reduce_mean: bool) -> Recipe:
    process = VE(0.01, 1348.0, t_min=_EPSILON)
    training = _training(8, 2_400_000, ema=0.9999, save_every=5000)
    network = _suited(_NETWORK_1024, process, False)
    return _recipe(Folder(size=1024), process, network, training, None, reduce_mean)


def _large_ddpm() -> Recipe:
    network = DDPMConfig(multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0)
    training = _training(64, 2_400_000, ema=0.9999, rate=2e-5, save_every=5000)
    return _recipe(Folder(size=256), VP(t_min=_EPSILON), network, training, 1000, reduce_mean=True)


# --- NCSNv2 -----------------------------------------------------------------------------------------------------------

_SMALLER = NCSNv2Config()
_DEEPER = NCSNv2Config(multipliers=(1, 2, 2, 4, 4), dilations=(1, 1, 1, 2, 4))  # for 96 to 128 pixels


def _ncsnv2(data: Source, sigma_max: float, levels: int, steps: int, network: NCSNv2Config = _SMALLER) -> Recipe:
    training = replace(_training(128, steps, ema=0.999, rate=1e-4), warmup=0, clip=None)
    network = replace(network, sigma_max=sigma_max, levels=levels)
    return _recipe(data, VE(0.01, sigma_max, t_min=_EPSILON), network, training, levels, reduce_mean=False)


def ncsnv2() -> dict[str, Recipe]:
    """The recipes of NCSNv2 by name."""
    return {
        "cifar10-ncsnv2": _ncsnv2(Cifar10(), 50.0, levels=232, steps=300_000),
        "celeba-64-ncsnv2": _ncsnv2(Folder(size=64, crop=140), 90.0, levels=500, steps=210_000),
        "lsun-bedroom-128-ncsnv2": _ncsnv2(Folder(size=128), 190.0, 1086, steps=150_000, network=_DEEPER),
    }


def larger() -> dict[str, Recipe]:
    """All recipes of larger images by name."""
    return {
        "celeba-64": _celeba(discrete=False),
        "celeba-64-discrete": _celeba(discrete=True),
        **{f"{name}-256": _large(name) for name in _SIGMA_MAX},
        **{f"{name}-256-ddpm": _large_ddpm() for name in ("lsun-bedroom", "lsun-church", "celebahq")},
        "ffhq-1024": _huge(reduce_mean=True),
        "celebahq-1024": _huge(reduce_mean=False),
    }
