"""A machine that lacks something: what can be done is done, and what cannot says what to install; no traceback.

One process imports torch, and forks for every case: there the extras have not been imported yet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")

_CASES = """
import io, json, os, sys, traceback
from contextlib import redirect_stderr, redirect_stdout
import torch, numpy
import sdekit as sk
torch.set_num_threads(1)

def take_away(names):
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]  # what torch itself has tried to import
    sys.modules.update(dict.fromkeys(names))  # what is None there cannot be imported

def command(missing, arguments):
    take_away(missing)
    sys.argv = ["sdekit-generative", *arguments]
    from sdekit_generative.__main__ import main
    try:
        main()
    except SystemExit as ending:
        return ending.code
    return 0

def python(missing, code):
    take_away(missing)
    try:
        exec(code, {})
    except ImportError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0

found = []
for missing, what in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    if not os.fork():
        out, err, status = io.StringIO(), io.StringIO(), 1
        try:
            with redirect_stdout(out), redirect_stderr(err):
                status = python(missing, what) if isinstance(what, str) else command(missing, what)
        except BaseException:
            traceback.print_exc(file=err)
        finally:
            os.write(writing, json.dumps([status, out.getvalue(), err.getvalue()])[:60000].encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        found.append(json.loads(stream.read()))
    os.wait()
print(json.dumps(found))
"""

ALL = ["cyclopts", "matplotlib", "PIL", "safetensors", "tqdm", "pyarrow", "tensorboard"]
OTHERS = ["scipy", "sklearn", "torchvision", "torchmetrics", "diffusers", "accelerate", "rich"]
SMALL = ["--set=network.channels=8", "--set=network.multipliers=1", "--set=network.attention=[]", "--batch=4"]
TRAIN = ["train", "digits", "--steps=1", "--threads=1", "--device=cpu", *SMALL]

_SOLVE = """
import torch, sdekit as sk
process, x = sk.VP(), torch.zeros(3, 2)
score = sk.GaussianMixture(means=torch.eye(2), stds=0.3).score(process)
sk.solve(sk.reverse(process, score), x, 1.0, 0.1, solver=sk.EulerMaruyama(), steps=sk.FixedSteps(3), seed=0)
sk.log_likelihood(process, score, x, solver=sk.Dopri5(), steps=sk.Adaptive(1e-3, 1e-3))
"""


def _environment() -> dict[str, str]:
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def _run(cases: list[tuple[list[str], list[str] | str]], place: Path) -> list[tuple[int, str, str]]:
    """(status, stdout, stderr) of each case: what is missing, and a command or code."""
    command = [sys.executable, "-W", "ignore", "-c", _CASES, json.dumps(cases)]
    done = subprocess.run(command, cwd=place, env=_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [(status, out, err) for status, out, err in json.loads(done.stdout.splitlines()[-1])]


def test_what_is_missing_is_named_with_what_to_install_and_the_rest_works(tmp_path):
    (tmp_path / "shard.parquet").write_bytes(b"PAR1")
    (tmp_path / "odd" / "torchvision").mkdir(parents=True)
    (tmp_path / "odd" / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')")
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 17, (8, 8, 8), dtype=np.uint8))
    # what is missing, what is done, and the extra to install; none where it works all the same
    cases: list[tuple[list[str], list[str] | str, str | None]] = [
        (["cyclopts"], ["--help"], "generative"),
        (["safetensors"], TRAIN, "generative"),
        (["tqdm"], TRAIN, "generative"),
        (["pyarrow"], ["data", "check", "shard.parquet"], "parquet"),
        (["tensorboard"], [*TRAIN, "--tensorboard", "--out=board"], "tensorboard"),
        (["safetensors"], "import sdekit_generative as sg; sg.load('nowhere')", "generative"),
        (["PIL"], "import sdekit_generative as sg; sg.Folder('nowhere').load()", "generative"),
        ([*ALL, *OTHERS], _SOLVE, None),
        ([*ALL, *OTHERS], "import sdekit_generative; sdekit_generative.UserError; dir(sdekit_generative)", None),
        (["matplotlib", "pyarrow", "tensorboard", *OTHERS[:-1]], [*TRAIN, "--out=run"], None),
        (["matplotlib", "pyarrow"], ["data", "check", "a.npy"], None),
        ([], f"import sys; sys.path.insert(0, {str(tmp_path / 'odd')!r})\nimport sdekit, sdekit_generative.run", None),
    ]
    found = _run([(missing, what) for missing, what, _ in cases], tmp_path)
    for (missing, what, extra), (status, out, err) in zip(cases, found, strict=True):
        assert status == (2 if extra else 0), (missing, what, err)
        assert "Traceback" not in out + err
        if extra:
            assert len([line for line in err.splitlines() if not line.startswith("note: ")]) == 1
            assert missing[0] in err
            assert f"pip install 'sdekit[{extra}]'" in err
    assert (tmp_path / "run" / "log.jsonl").read_bytes().count(b"\n") == 1


def test_a_reader_that_goes_does_not_stop_the_work(tmp_path):
    """`… 2>&1 | head -1`, of a command that prints more, and works on."""
    command = [sys.executable, "-m", "sdekit_generative", *TRAIN, "--out", str(tmp_path / "run")]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=_environment(), **streams) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"training in 1 process on cpu\n"
        process.stdout.close()
        assert process.wait(timeout=120) == 0
    assert (tmp_path / "run" / "checkpoints" / "step-00000001").is_dir()
