"""The README does what it says: its snippets run, and its numbers are those of benchmarks/results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippets() -> list[str]:
    blocks = re.findall(r"(<!-- not run: [^\n]*-->\n)?```python\n(.*?)```", README, re.DOTALL)
    return [code for note, code in blocks if not note]


@pytest.mark.parametrize("code", snippets(), ids=lambda code: code.strip().splitlines()[-1][:40])
def test_a_snippet_runs(code):
    exec(compile(code, "README.md", "exec"), {})


def test_ci_runs_exactly_the_test_command():
    command = "pip install 'torch==2.13.0' -e '.[test]' && python -m pytest -n 2"
    assert f"```sh\n{command}\n```" in README
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_numbers_are_those_of_the_results():
    from benchmarks.readme import filled

    assert filled(README) == README, "run `python -m benchmarks.readme`"
