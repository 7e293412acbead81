"""Every public function of sdekit_generative that takes a tensor, ready to be called with another; and the others."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

import sdekit as sk
import sdekit_generative as sg
from sdekit_generative import editing, interop, inverse, losses

from .tensors import Entry

FEW = sg.Fast(steps=2)


class Silent(torch.nn.Module):
    """A network that gives next to nothing, with classes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = torch.nn.Parameter(torch.full((), 0.01), requires_grad=False)

    def forward(self, x: Tensor, c: Tensor, labels: Tensor | None = None) -> Tensor:
        """Something that depends on all it is told."""
        told = c if labels is None else c + labels
        return x * self.size * told.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


class Linear(torch.nn.Module):
    """A classifier of noisy images, and features of images."""

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Ten numbers an image."""
        return x.flatten(1)[:, :10] * (1.0 if c is None else torch.sigmoid(c)[:, None])


MODEL = sg.ScoreModel(Silent(), sk.VP(), sg.PredictVelocity(0.5), sg.DataRange(-1, 1), (1, 8, 8), 17)
CLASSIFIER = Linear()


def pictures() -> Tensor:
    """`(4, 1, 8, 8)` in [0, 1]."""
    return torch.linspace(0.05, 0.95, 256).reshape(4, 1, 8, 8)[:, :, torch.arange(7, -1, -1)]


def grey() -> Tensor:
    """The same as uint8 levels, 17 of them."""
    return (pictures() * 17).to(torch.uint8)


def inner() -> Tensor:
    """The same in the model's range."""
    return 2.0 * pictures() - 1.0


def features() -> Tensor:
    """`(12, 3)`."""
    return torch.sin(torch.arange(36.0)).reshape(12, 3)


def times() -> Tensor:
    """One a sample, `(4, 1, 1, 1)`."""
    return torch.tensor([0.2, 0.4, 0.5, 0.8]).reshape(4, 1, 1, 1)


def uniforms() -> Tensor:
    """One a sample, `(4,)`."""
    return torch.tensor([0.2, 0.4, 0.5, 0.8])


def classes() -> Tensor:
    """One a sample, int64."""
    return torch.tensor([0, 3, 1, 2])


def _metrics() -> Iterator[Entry]:
    other = features() + 0.1 * torch.cos(features())
    yield Entry("frechet_distance", "a", lambda v: sg.frechet_distance(v, other), features)
    yield Entry("frechet_distance", "b", lambda v: sg.frechet_distance(other, v), features)
    yield Entry("kernel_distance", "a", lambda v: sg.kernel_distance(v, other, subsets=3, size=4), features)
    yield Entry("kernel_distance", "b", lambda v: sg.kernel_distance(other, v, subsets=3, size=4), features)
    yield Entry("precision_recall", "real", lambda v: sg.precision_recall(v, other), features)
    yield Entry("precision_recall", "generated", lambda v: sg.precision_recall(other, v), features)
    yield Entry("inception_score", "logits", lambda v: sg.inception_score(v, splits=2), features)
    for name, function in (("psnr", sg.psnr), ("ssim", sg.ssim)):
        yield Entry(name, "images", lambda v, f=function: f(v, 0.9 * pictures()), pictures)
        yield Entry(name, "truth", lambda v, f=function: f(0.9 * pictures(), v), pictures)
    yield Entry("digit_features", "images", sg.digit_features, pictures)
    yield Entry("digit_features", "images", sg.digit_features, grey)
    yield Entry("DigitFeatures", "images", lambda v: sg.DigitFeatures()(v, 17), grey)
    yield Entry("FeatureModule", "images", lambda v: sg.FeatureModule(Linear())(v, 17), grey)
    yield Entry(
        "measure_images", "images", lambda v: sg.measure_images(sg.Dataset(v, 17), sg.DigitFeatures()).mean, grey
    )
    for name in ("mean", "covariance"):
        given = {"mean": torch.zeros(3, dtype=torch.float64), "covariance": torch.eye(3, dtype=torch.float64)}
        moments = sk.Moments.of(features(), full=True)
        yield Entry("Statistics", name, lambda v, n=name, g=given, m=moments: sg.Statistics(
            **{**g, n: v}, features=None, provenance={}).distance(m), lambda g=given, n=name: g[n].clone())  # fmt: skip


def _data() -> Iterator[Entry]:
    yield Entry("Dataset", "images", lambda v: sg.Dataset(v, 17).select(torch.tensor([1, 0])).images, grey)
    yield Entry("Dataset", "labels", lambda v: sg.Dataset(grey(), 17, v).select(torch.tensor([1, 0])).labels, classes)
    yield Entry("Dataset", "held_out", lambda v: [part.images for part in sg.Dataset(grey(), 17, None, v).split()],
                lambda: torch.tensor([True, False, True, False]))  # fmt: skip
    yield Entry("DataRange", "y", sg.DataRange(-1, 1).enter, pictures)
    yield Entry("DataRange", "x", sg.DataRange(-1, 1).leave, inner)
    draws, learned = sk.KeyedDraws(0), sg.VariationalNoise(1, width=4, couplings=1)
    for law in (sg.UniformNoise(), sg.TruncatedNormalNoise(), learned):
        yield Entry(type(law).__name__, "images", lambda v, law=law: law(v, 17, draws).detach(), grey)
        yield Entry(type(law).__name__, "y", lambda v, law=law: law.log2_density(grey(), 17, v).detach(),
                    lambda: (grey() + 0.5) / 17, constant=isinstance(law, sg.UniformNoise))  # fmt: skip


def _models() -> Iterator[Entry]:
    guided = sg.ClassifierGuided(MODEL, CLASSIFIER, 3)
    for name, model in (("ScoreModel", MODEL), ("ClassifierGuided", guided)):
        yield Entry(name, "x", lambda v, m=model: m(0.5, v), inner, traced=True)
        yield Entry(name, "t", lambda v, m=model: m(v, inner()), times)
    yield Entry("ScoreModel", "labels", lambda v: MODEL.conditional(v, 2.0)(0.5, inner()), classes)
    yield Entry(
        "ClassifierGuided", "labels", lambda v: sg.ClassifierGuided(MODEL, CLASSIFIER, v)(0.5, inner()), classes
    )
    parametrisations = (
        sg.PredictNoise(),
        sg.PredictVelocity(),
        sg.EDMPreconditioning(),
        sg.Predict("v"),
        sg.Song2021(),
    )
    for parametrisation in parametrisations:
        model = sg.ScoreModel(Silent(), sk.VP(), parametrisation, sg.DataRange(-1, 1), (1, 8, 8), 17)
        yield Entry(type(parametrisation).__name__, "x", lambda v, m=model: m(0.5, v), inner, traced=True)
        yield Entry(type(parametrisation).__name__, "t", lambda v, m=model: m(v, inner()), times)
    for sampler in (FEW, sg.PC(steps=30), sg.ODE(), sg.Song2021PC(steps=30)):
        yield Entry(
            type(sampler).__name__,
            "labels",
            lambda v, s=sampler: sg.generate(MODEL, 4, s, labels=v, guidance=1.5),
            classes,
        )
    yield Entry("generate", "labels", lambda v: sg.generate(MODEL, 4, FEW, labels=v, guidance=1.5), classes)
    yield Entry("draw", "labels", lambda v: sg.draw(MODEL, 4, FEW, labels=v), classes)
    for make in (pictures, grey):
        yield Entry("bits_per_dim", "images", lambda v: sg.bits_per_dim(
            MODEL, v, solver=sk.RK4(), steps=sk.FixedSteps(2)), make)  # fmt: skip
    yield Entry("dequantised_bits_per_dim", "images", lambda v: sg.dequantised_bits_per_dim(
        MODEL, v, sg.UniformNoise(), solver=sk.RK4(), steps=sk.FixedSteps(2)), grey)  # fmt: skip
    yield Entry("fit_dequantisation", "images", lambda v: list(sg.fit_dequantisation(
        MODEL, sg.Dataset(v, 17), steps=1, batch=2).parameters()), grey)  # fmt: skip


def _losses() -> Iterator[Entry]:
    labelled = sg.ScoreModel(
        CLASSIFIER, sk.VP(), sg.PredictNoise(), sg.DataRange(-1, 1), (1, 8, 8), 17, labels=classes()
    )
    for loss in (sg.DenoisingLoss(), sg.SlicedLoss(), sg.ScoreMatching(), sg.ClassifierLoss()):
        name, model = type(loss).__name__, labelled if isinstance(loss, sg.ClassifierLoss) else MODEL
        z = torch.cos(7 * inner())
        yield Entry(name, "x0", lambda v, f=loss, m=model, z=z: f(m, v, uniforms(), z, z.sign()).detach(), inner)
        yield Entry(name, "u", lambda v, f=loss, m=model, z=z: f(m, inner(), v, z, z.sign()).detach(), uniforms)
        yield Entry(name, "z", lambda v, f=loss, m=model: f(m, inner(), uniforms(), v, inner().sign()).detach(), inner)
    process = sk.VP()
    laws = (
        sg.UniformTime(),
        sg.UniformNoiseLevel(),
        sg.FocusedNoiseLevel(),
        sg.LogNormalNoiseLevel(),
        sg.DiscreteTime(10),
    )
    for law in laws:
        yield Entry(type(law).__name__, "u", lambda v, law=law: law.sample(process, v), lambda: uniforms().double())
    for weighting in (sg.LikelihoodWeighting(), sg.NoiseWeighting(), sg.PerceptualWeighting(), sg.MinSNRWeighting()):
        yield Entry(type(weighting).__name__, "t", lambda v, w=weighting: w(process, v), lambda: uniforms().double(),
                    constant=isinstance(weighting, sg.LikelihoodWeighting))  # fmt: skip
    yield Entry("losses", "x0", lambda v: losses.diffused(process, v, uniforms(), inner()), inner)
    yield Entry("MeanReverting", "x0", lambda v: sk.solve(
        sg.MeanReverting(), v, 0.1, 0.5, solver=sk.EulerMaruyama(), steps=sk.FixedSteps(2)).x, inner)  # fmt: skip
    yield Entry("as_process", "t", lambda v: sg.as_process(sk.OrnsteinUhlenbeck()).scale(v), lambda: uniforms())


def _restorations() -> Iterator[Entry]:
    mask = torch.ones(1, 8, 8)
    mask[:, 4:] = 0.0
    operator = inverse.Inpaint(mask)
    yield Entry(
        "restore",
        "observed",
        lambda v: sg.restore(MODEL, operator, v, noise=0.1, sampler=FEW),
        lambda: operator(pictures()),
    )
    yield Entry("inverse", "mask", lambda v: inverse.observe(inverse.Inpaint(v), pictures()), lambda: mask.clone())
    yield Entry(
        "inverse",
        "matrix",
        lambda v: inverse.observe(inverse.MixChannels(v), pictures()),
        lambda: torch.full((1, 1), 0.5),
    )
    yield Entry("inverse", "images", lambda v: inverse.observe(inverse.Downsample(2), v, 0.1), pictures)
    yield Entry("editing", "images", lambda v: editing.rework(MODEL, v, 0.3, FEW), pictures)
    yield Entry("editing", "images", lambda v: editing.encode(MODEL, v, 0.1), pictures)
    yield Entry("editing", "latents", lambda v: editing.decode(MODEL, v, 0.1), inner)
    yield Entry("editing", "images", lambda v: editing.interpolate(MODEL, v, 2, 0.1), pictures)
    yield Entry(
        "interop",
        "x",
        lambda v: interop.from_function(lambda x, c: 0.1 * x, sk.VP(), (1, 8, 8))(0.5, v),
        inner,
        traced=True,
    )
    yield Entry(
        "interop", "x", lambda v: interop.from_denoiser(lambda x, s: 0.1 * x, (1, 8, 8))(0.5, v), inner, traced=True
    )


# public names that take no tensor: what is configured by numbers, read from files, raised, or given back; and modules of
# torch, which say themselves what they take: the models that hold them are entries
CONFIGURED = ("DDPMConfig", "DDPMppConfig", "NCSNppConfig", "NCSNv2Config", "SmallClassifierConfig", "UNetConfig",
              "WideResNetConfig", "Training", "Images", "Recipe", "recipes")  # fmt: skip
READ = ("Cifar10", "Digits", "Folder", "Parquet", "load", "load_classifier", "load_inception", "reconstruct")
RAISED = (
    "CheckpointError",
    "CheckpointWarning",
    "DataError",
    "DataWarning",
    "RecipeError",
    "RunError",
    "TrainingDiverged",
    "UserError",
)
RESULTS = ("Bits", "BitsPerDim", "Samples")
OBJECTS = (
    "Dequantisation",
    "EMA",
    "PowerEMA",
    "Trainer",
    "evaluate",
)  # networks, and data sets, which are entries themselves
MODULES = ("NCSNpp", "NCSNv2", "SmallClassifier", "UNet", "WideResNet")
WITHOUT = frozenset((*CONFIGURED, *READ, *RAISED, *RESULTS, *OBJECTS, *MODULES))

ENTRIES = (*_metrics(), *_data(), *_models(), *_losses(), *_restorations())
NAMES = sg.__all__
