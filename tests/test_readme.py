"""The README and the pages of docs do what they say: snippets run, commands exist, numbers are those of the results."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- with ([^\n]*) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


def blocks(language: str) -> list[Any]:
    """(what must be there, code) of every block of a language, with a name for the test."""
    found = []
    for page in PAGES:
        number = 0
        for needs, kind, code in BLOCK.findall(page.read_text(encoding="utf-8")):
            if kind == language:
                number += 1
                long = pytest.mark.slow if "a process" in needs else ()
                found.append(pytest.param(needs, code, id=f"{page.stem}-{number}", marks=long))
    return found


def rows(heading: str) -> list[Any]:
    """The right-hand sides of the table under a heading."""
    table = README.split(f"### {heading}\n")[1].split("\n##")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return [
        pytest.param(line.rsplit("| `", 1)[1].removesuffix("` |"), id=f"{heading}-{i}") for i, line in enumerate(lines)
    ]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which runs/demo holds a model: the demo's recipe, but tiny."""
    from sdekit_generative import recipes
    from sdekit_generative.train import begin
    from sdekit_generative.training import Stop

    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("readme")
    small = {"network.channels": "8", "network.multipliers": "1,2", "network.attention": "1", "training.steps": "4"}
    recipe = recipes.override(recipes.DIGITS, {**small, "training.batch": "8"})
    begin(place / "runs" / "demo", recipe).train(Stop(), lambda step, loss: None)
    return place


def _given(needs: str) -> dict[str, Any]:
    """What a snippet takes for granted."""
    if "process" not in needs:
        return {}
    import sdekit as sk

    process = sk.VP()
    score = sk.GaussianData(torch.zeros(3, 4, 4), std=0.5).score(process)
    x, t = 0.5 * torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5).double()
    return {
        "sk": sk,
        "process": process,
        "score": score,
        "network": score,
        "conditional": score,
        "unconditional": score,
        "E": lambda t, x: x.square().flatten(1).sum(1),
        "x": x,
        "start": process.prior_sample((2, 3, 4, 4), seed=0),
        "t": t,
        "step": 0,
        "sde": sk.OrnsteinUhlenbeck(1.0, 0.0, 1.0),
        "log_prob": lambda t, x: -0.5 * x.square().flatten(1).sum(1),
    }


@pytest.mark.parametrize(("needs", "code"), blocks("python"))
def test_a_snippet_runs(needs, code, request, monkeypatch, tmp_path):
    trained = needs.startswith("a trained model")
    monkeypatch.chdir(request.getfixturevalue("demo") if trained else tmp_path)
    code = code.replace("10**6", "10**3").replace("n=512", "n=64")  # what takes long is in other tests
    exec(compile(code, "README.md", "exec"), _given(needs))


@pytest.mark.parametrize(("needs", "code"), blocks("sh"))
def test_commands_and_their_options_exist(needs, code):
    from sdekit_generative.commands import app

    for line in code.replace("\\\n", " ").replace("&&", "\n").splitlines():
        words = shlex.split(line, comments=True)
        if "-m" in words and words[words.index("-m") + 1] == "sdekit_generative":
            words = ["sdekit-generative", *words[words.index("-m") + 2 :]]
        if words and words[0] == "sdekit-generative":
            app.parse_args(words[1:], exit_on_error=False, print_error=False)


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """Objects that the tables of other libraries' calls speak of."""
    import sdekit as sk
    import sdekit_generative as sg
    from sdekit.interop import from_torchsde

    class Theirs(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t, y):
            return -y

        def g(self, t, y):
            return 0.3 * torch.ones_like(y)

    class UNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)
            self.config = {"in_channels": 1, "out_channels": 1, "sample_size": 8}

        def forward(self, x, t, class_labels=None, return_dict=True):
            return (self.conv(x),)

    class Scheduler:
        config = {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": 1000,
            "beta_start": 1e-4,
            "beta_end": 0.02,
            "beta_schedule": "linear",
            "prediction_type": "epsilon",
        }

    theirs, unet, scheduler, mask = Theirs(), UNet(), Scheduler(), torch.ones(8, 8)
    mask[:, 4:] = 0
    process = sk.VP()
    images = sg.Digits().load().images[:2]
    return {
        "sk": sk,
        "sg": sg,
        "from_torchsde": from_torchsde,
        "theirs": theirs,
        "f": theirs.f,
        "g": theirs.g,
        "sde": sk.ItoSDE(theirs.f, theirs.g, noise=sk.Noise.DIAGONAL),
        "prior": sk.ItoSDE(lambda t, x: -2.0 * x, theirs.g, noise=sk.Noise.DIAGONAL),
        "stratonovich": sk.StratonovichSDE(theirs.f, theirs.g, noise=sk.Noise.DIAGONAL),
        "y0": torch.ones(8, 2),
        "unet": unet,
        "scheduler": scheduler,
        "process": process,
        "score": lambda t, x: -x,
        "x": torch.ones(8, 2),
        "t": 0.5,
        "mask": mask,
        "levels": images,
        "observed": (images + 0.5) / 17 * mask,
    }


def _model(recipe: str = "digits") -> Any:
    from sdekit_generative import recipes

    small = {"network.channels": "8", "network.multipliers": "1,2", "network.attention": "1"}
    model = recipes.override(recipes.find(recipe), small).build((1, 8, 8), 17)
    model.network.requires_grad_(False)
    return model


@pytest.mark.parametrize("ours", [*rows("torchsde"), *rows("diffusers"), *rows("score_sde")])
def test_what_stands_beside_another_librarys_call_runs(ours, known):
    if ours.startswith("sdekit-generative "):
        test_commands_and_their_options_exist("", ours)
        return
    for found in _listed(eval(ours, {**known, "model": _model()})):
        if hasattr(found, "route"):  # a sampler makes images
            assert known["sg"].generate(_model(), n=1, sampler=_shorter(found)).isfinite().all()
        elif isinstance(found, torch.Tensor):
            assert found.isfinite().all()


def _listed(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def _shorter(sampler: Any) -> Any:
    from dataclasses import replace

    return replace(sampler, steps=24) if getattr(sampler, "steps", 0) > 100 else sampler


def test_links_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        headings = {
            re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        for link in [*re.findall(r"\]\(([^)]+)\)", text), *re.findall(r'<img src="([^"]+)"', text)]:
            if link.startswith("#"):
                assert link[1:] in headings, f"{page.name}: {link}"
            elif not link.startswith("http"):
                assert (page.parent / link.split("#")[0]).exists(), f"{page.name}: {link}"


def test_the_version_is_the_same_wherever_it_is_said():
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert f"\nversion: {version[1]}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version[1]}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_ci_runs_exactly_the_test_command():
    command = "pip install 'torch==2.13.0' -e '.[test]' && python -m pytest -n 2"
    assert f"```sh\n{command}\n```" in README
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_numbers_are_those_of_the_results():
    from benchmarks.readme import filled

    assert filled(README) == README, "run `python -m benchmarks.readme`"
