"""Every public name says what it is and what it raises, and every public function is called by a test."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import sdekit
import sdekit_generative

TESTS = Path(__file__).parent


@cache
def modules() -> list[ModuleType]:
    found: list[ModuleType] = []
    for package in (sdekit, sdekit_generative):
        names = [info.name for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
        found += [package, *(importlib.import_module(name) for name in names if not name.endswith("__main__"))]
    return found


@cache
def public() -> list[tuple[str, Any]]:
    """(where.name, object) of every `__all__`, each object once."""
    found: dict[int, tuple[str, Any]] = {}
    for module in modules():
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            found.setdefault(id(value), (f"{module.__name__}.{name}", value))
    return [pair for pair in found.values() if not inspect.ismodule(pair[1])]


def functions_of(kind: type) -> Iterator[tuple[str, Any]]:
    """The functions that a class defines, under whatever decorator, by name."""
    for name, value in vars(kind).items():
        function = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if inspect.isfunction(function) and function.__code__.co_filename != "<string>":  # dataclasses make some
            yield name, function


@cache
def of_contracts() -> set[str]:
    """Members of documented Protocols, which need not say again what they are wherever they are implemented."""
    kinds = [kind for module in modules() for kind in vars(module).values() if getattr(kind, "_is_protocol", False)]
    return {name for kind in kinds if kind.__doc__ for name in vars(kind) if not name.startswith("_")}


def own_words(kind: type) -> str | None:
    """A class's docstring, and not the signature that a dataclass puts in its place."""
    words = vars(kind).get("__doc__")
    return None if dataclasses.is_dataclass(kind) and (words or "").startswith(f"{kind.__name__}(") else words


def test_every_module_and_every_public_class_and_function_says_what_it_is() -> None:
    silent = [module.__name__ for module in modules() if not module.__doc__]
    for name, value in public():
        if (inspect.isclass(value) and not own_words(value)) or (inspect.isfunction(value) and not value.__doc__):
            silent.append(name)
    assert not silent


def test_every_member_of_a_public_class_says_what_it_is_or_implements_a_contract_that_does() -> None:
    silent = [
        f"{where}.{name}"
        for where, value in public()
        if inspect.isclass(value)
        for name, function in functions_of(value)
        if not name.startswith("_") and name not in of_contracts() and not inspect.getdoc(getattr(value, name))
    ]
    assert not silent


def raised(function: Any) -> set[str]:
    """Names of the exceptions that a function's own body raises."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))
    thrown = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc is not None]
    calls = [node.func for node in thrown if isinstance(node, ast.Call)]
    return {call.id for call in calls if isinstance(call, ast.Name)}


def test_a_public_name_that_refuses_its_arguments_says_so() -> None:
    silent: list[str] = []
    for where, value in public():
        makers = [value] if inspect.isfunction(value) else []
        if inspect.isclass(value) and not getattr(value, "_is_protocol", False):
            makers = [function for name, function in functions_of(value) if name in ("__init__", "__post_init__")]
        words = value.__doc__ or ""
        if any(raised(maker) for maker in makers) and "aises" not in words and "errors as" not in words.lower():
            silent.append(where)
    assert not silent


@cache
def named_in_tests() -> set[str]:
    """Every name and attribute that occurs as code, not in a string, in the tests."""
    nodes = [node for path in TESTS.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def test_every_public_function_is_called_in_some_test() -> None:
    functions = [where for where, value in public() if inspect.isfunction(value)]
    assert len(functions) > 100
    assert not [where for where in functions if where.rpartition(".")[2] not in named_in_tests()]
