"""Nothing imports in a circle, and the pictures in docs/structure.md show rooms and imports that there are."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("sdekit", "sdekit_generative")


def imported(file: Path) -> set[str]:
    """The rooms of its own package that a file imports when it runs; what only a type checker sees is left out."""
    tree, package = ast.parse(file.read_text()), file.relative_to(ROOT).parts[:-1]
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    hidden = {inner for node in typing for inner in ast.walk(node)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in hidden:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            named = [part for part in base if part]
            found |= {named[1]} if len(named) > 1 else {alias.name for alias in node.names}
    return found


def rooms(package: str) -> dict[str, set[str]]:
    """What each room, a file or a folder of a package, imports of the others."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / package).rglob("*.py"):
        room = file.relative_to(ROOT).with_suffix("").parts[1]
        if room != "__init__":
            found.setdefault(room, set()).update(imported(file))
    return {room: {other for other in others if other != room and other in found} for room, others in found.items()}


def reached(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """What every room imports, if only by way of others."""
    below: dict[str, set[str]] = {}
    for room in TopologicalSorter(graph).static_order():  # raises CycleError for a circle
        below[room] = graph[room].union(*(below[other] for other in graph[room]))
    return below


def drawn(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The imports that do not follow from others: a → c is left out where a → b → c."""
    below = reached(graph)
    return {(a, c) for a in graph for c in graph[a] if not any(c in below[b] for b in graph[a])}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_picture_shows_every_room_and_no_import_that_is_not_there(package):
    text = (ROOT / "docs" / "structure.md").read_text()
    picture = re.findall(r"```mermaid\n(.*?)```", text, re.S)[PACKAGES.index(package)]
    arrows = set(re.findall(r"^ *(\w+) --> (\w+)$", picture, re.M))
    graph = rooms(package)
    below = reached(graph)
    now = "\n".join(f"    {a} --> {b}" for a, b in sorted(drawn(graph)))
    assert {room for arrow in arrows for room in arrow} == set(graph), now
    assert all(c in below[a] for a, c in arrows), now
