"""Recipes as JSON and back: every object is written as its fields and the name of its class, `"kind"`.

What may stand in a recipe is listed in FAMILIES, kind by kind; a file cannot name anything else.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from ..errors import RecipeError
from .families import FAMILIES

T = TypeVar("T")


def suggest(name: str, known: Iterable[str]) -> str:
    """What to say after an unknown name: the nearest known one, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def encode(value: Any) -> Any:
    """A recipe, or a part of one, as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value


def decode(data: Any, expected: Any, place: str = "recipe") -> Any:
    """The object that `encode` wrote, checked against the type expected. Raises RecipeError that names the place."""
    if expected in FAMILIES:
        return _decode_object(data, FAMILIES[expected], place)
    if isinstance(expected, type) and dataclasses.is_dataclass(expected):
        return _decode_object(data, (expected,), place)
    return _decode_plain(data, expected, place)


def _decode_object(data: Any, family: tuple[type, ...], place: str) -> Any:
    kinds = {kind.__name__: kind for kind in family}
    if isinstance(data, str):  # the bare name of a kind stands for its defaults
        data = {"kind": data}
    if not isinstance(data, Mapping) or not isinstance(data.get("kind"), str):
        raise RecipeError(f"{place}: expected one of {', '.join(kinds)}, got {data!r}")
    if data["kind"] not in kinds:
        raise RecipeError(f"{place}: unknown kind {data['kind']}; {suggest(data['kind'], kinds)}")
    cls = kinds[data["kind"]]
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name == "kind":
            continue
        if name not in names:
            raise RecipeError(f"{place}: {cls.__name__} has no {name}; {suggest(name, names)}")
        values[name] = decode(value, hints[name], f"{place}.{name}")
    try:
        return cls(**values)
    except (ValueError, TypeError) as problem:
        raise RecipeError(f"{place}: {problem}") from None


def _decode_plain(data: Any, expected: Any, place: str) -> Any:
    origin = typing.get_origin(expected)
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        expected = next(option for option in typing.get_args(expected) if option is not type(None))
        return _decode_plain(data, expected, place)
    if origin is Literal:
        if data not in typing.get_args(expected):
            raise RecipeError(
                f"{place}: expected one of {', '.join(map(str, typing.get_args(expected)))}, got {data!r}"
            )
        return data
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            data = [data]
        return tuple(_decode_plain(item, typing.get_args(expected)[0], place) for item in data)
    if expected is float and isinstance(data, int) and not isinstance(data, bool) and abs(data) < 10**300:
        return float(data)
    if isinstance(data, bool) != (expected is bool) or not isinstance(data, expected):
        raise RecipeError(f"{place}: expected {expected.__name__}, got {data!r}")
    return data


def override(recipe: T, changes: Mapping[str, str]) -> T:
    """The recipe with fields replaced: `{"training.steps": "200", "process": "VE", "process.sigma_max": "20"}`.

    Values are JSON; what is not JSON is taken as text. Raises RecipeError that names the unknown field.
    """
    data = encode(recipe)
    # the kind of an object before its fields
    for path, text in sorted(changes.items(), key=lambda change: change[0].count(".")):
        *parents, last = path.split(".")
        spot, place = data, "recipe"
        for name in parents:
            spot = _enter(spot, name, place)
            place = f"{place}.{name}"
        _enter(spot, last, place)
        value = _value(text)
        spot[last] = {"kind": value} if isinstance(spot[last], Mapping) and isinstance(value, str) else value
        if isinstance(spot[last], Mapping):  # so that the fields of the new kind can be named next
            data = encode(decode(data, type(recipe)))
    return decode(data, type(recipe))


def _enter(spot: Any, name: str, place: str) -> Any:
    if not isinstance(spot, Mapping):
        raise RecipeError(f"{place}: has no parts, so no {name}")
    names = [n for n in spot if n != "kind"]
    if name not in names:
        raise RecipeError(
            f"{place}: {spot['kind']} has no {name}; {suggest(name, names) if names else 'it has no fields'}"
        )
    return spot[name]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return tuple(_value(part) for part in text.split(",")) if "," in text else text


def differences(ours: Any, theirs: Any, place: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two encoded recipes differ: place → (ours, theirs)."""
    if not (isinstance(ours, Mapping) and isinstance(theirs, Mapping)):
        return {} if ours == theirs else {place: (ours, theirs)}
    found: dict[str, tuple[Any, Any]] = {}
    for name in {**ours, **theirs}:
        found |= differences(ours.get(name), theirs.get(name), f"{place}.{name}" if place else name)
    return found
