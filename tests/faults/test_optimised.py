"""Nothing here depends on assert statements: the tests of this folder hold under `python -O` as well.

pytest rewrites the asserts of test modules, which are checked under -O too; those of the packages are gone.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _run(*selection: str, timeout: float) -> str:
    command = [
        sys.executable, "-O", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestConfigWarning",
        "--ignore", str(HERE / "test_leaks.py"), *selection,
    ]  # fmt: skip
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=HERE.parent.parent, env=one)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def _passed(said: str) -> int:
    found = re.search(r"(\d+) passed", said)
    return 0 if found is None else int(found[1])


@pytest.mark.skipif(sys.flags.optimize == 0, reason="is started by the tests below, with python -O")
def test_asserts_of_the_packages_are_gone():
    assert not __debug__


@pytest.mark.skipif(sys.flags.optimize > 0, reason="would start itself")
def test_faults_are_answered_without_asserts():
    files = [str(HERE / f"test_{name}.py") for name in ("optimised", "bad_numbers", "limits", "tensors")]
    words = "asserts_of or random_fault or refused or returns_wrongly"
    assert _passed(_run(*files, "-k", words, timeout=300)) > 80


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.flags.optimize > 0, reason="would start itself")
def test_the_whole_folder_holds_without_asserts():
    assert _passed(_run(str(HERE), timeout=1700)) > 350
