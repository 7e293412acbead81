"""Compiled functions, kept for the next solve with the same objects."""

from __future__ import annotations

import types
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..solve import Run

_KEPT = 32  # graphs
_SHAPES = 4  # shapes of one problem's state that get code of their own


def _options() -> dict[str, Any]:
    """Those of torch's compiler: headers are not compiled apart, which would take longer than the few graphs of a solve."""
    name = "cpp_cache_precompile_headers"  # an option that some releases lack, which only torch._inductor tells
    return {name: False} if name in torch._inductor.list_options() else {}  # pyright: ignore[reportPrivateUsage]


class Graph:
    """A compiled `_steps` or `_attempts`; `broken` says why there is none."""

    def __init__(self, sde: Any, solver: Any, function: types.FunctionType, dynamic: bool) -> None:
        self.sde, self.solver = sde, solver  # held, so that their identities stay theirs
        self.broken: str | None = None
        self._tried = False
        # torch counts the forms of a function by its code, and would refuse the ninth SDE
        own = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
        self._call = torch.compile(own, fullgraph=True, dynamic=dynamic, options=_options())

    def __call__(self, *arguments: Any) -> Any:
        """The steps, or None where they cannot be compiled."""
        try:
            if self._tried:
                return self._call(self.sde, self.solver, *arguments)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about itself
                result = self._call(self.sde, self.solver, *arguments)
        except Exception as error:  # what is wrong with the functions themselves, the plain loop will say
            self.broken = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return None
        self._tried = True
        return result


_graphs: OrderedDict[tuple[Any, ...], Graph] = OrderedDict()


def graph_of(function: Any, run: Run, *form: Any) -> Graph:
    """The graph of a run's SDE, solver, shape and so on, made once."""
    sde, solver, shape = run.sde.given, run.solver, tuple(run.x.shape)
    shapes = {key[2] for key in _graphs if key[0] == id(sde) and key[1] == solver}
    # code for one shape is faster; who comes with many gets code for any
    dynamic = shape not in shapes and len(shapes) >= _SHAPES
    key = (id(sde), solver, None if dynamic else shape, run.x.dtype, run.x.device, function, *form)
    if key not in _graphs:
        _graphs[key] = Graph(sde, solver, function, dynamic)
        while len(_graphs) > _KEPT:
            _graphs.popitem(last=False)
    _graphs.move_to_end(key)
    return _graphs[key]


def say(run: Run, why: str) -> None:
    """That a run is not compiled."""
    name, kind = type(run.solver).__name__, type(run.sde.given).__name__
    warnings.warn(f"compile=True: {name} on {kind} was not compiled, and goes on step by step ({why})", stacklevel=5)
