"""Static graphs in float64 whose routers answer as a script demands, and the comparison with a written graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morvit_deploy.graph.maths.rewrites import KV
from morvit_deploy.graph.style.blocks import StaticNorm
from morvit_deploy.graph.style.one_hot import OneHot
from morvit_deploy.graph.style.selection import Gathers
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.config import Config
from morvit_deploy.model.layers import double_of
from morvit_deploy.verifying.constructed import DEPTHS, Router, Script, logits_name, scripts_of

Values = dict[str, NDArray[Any]]  # name to value, in the order of computation

# × max(1, |value|). Both sides are float64 with the same weights and rounded settings; a runtime's form of an
# activation may have float32 constants of its own, which are off by 6e-8.
VALUE_TOLERANCE = 1e-7
SHOWN = 300  # characters of an evaluator's message, which lists every value


@dataclass(frozen=True)
class Replay:
    """One run of a static graph: its values, with the router logits as computed, and those that replaced them."""

    values: Values
    given: Values


def exact_copies(graphs: Mapping[str, StaticMoRViT], kind: type[np.floating[Any]]) -> dict[str, StaticMoRViT]:
    """The buckets' graphs in float64. Numbers that are not weights are rounded to `kind`; ties rank by index."""
    shared = double_of(next(iter(graphs.values())))
    for module in shared.modules():
        if isinstance(module, StaticNorm):
            module.eps = float(kind(module.eps))
    exact = {}
    for name, graph in graphs.items():
        exact[name] = copy.copy(shared)
        exact[name].capacity, exact[name].config = graph.capacity, _with_alpha(graph.config, kind)
        exact[name].selection = selection = copy.copy(graph.selection)
        selection.dtype = torch.float64
        if not isinstance(selection, OneHot):
            selection.rank = _rank_by_index  # type: ignore[method-assign]
        if graph.thresholds is not None:
            exact[name].thresholds = _rounded(graph.thresholds, selection, kind)
    return exact


def replay(
    graph: StaticMoRViT, image: Tensor, script: Script, kind: type[np.floating[Any]] = np.float32
) -> Replay:
    """Run a graph of `exact_copies` on an image batch, its routers answering as the script demands."""
    routers = [Router(graph, script, kind, seed) for seed in range(len(image))]
    computed: dict[str, Tensor] = {}
    given: dict[str, Tensor] = {}

    def router(step: int) -> Any:
        def answer(h: Tensor) -> Tensor:
            name = DEPTHS if graph.config.record.depth_upfront else logits_name(step)
            z = computed[name] = graph.router(step)(h)
            tokens, channels = graph.layout.count(h), z.shape[1 if z.ndim == 4 else -1]
            answers = [torch.from_numpy(one.logits(step, tokens, channels)) for one in routers]
            given[name] = torch.stack([_laid_out(one, z) for one in answers]).reshape(z.shape)
            return given[name]

        return answer

    scripted = copy.copy(graph)
    scripted.router = router  # type: ignore[method-assign]
    if script.decisions_only:
        scripted.block = lambda name: _Skipped()  # type: ignore[method-assign, assignment, return-value]
    with torch.no_grad():
        out = scripted(image)
    found = {name: value for name, value in out.items() if is_decision(name)}
    return Replay(_arrays(found if script.decisions_only else out | computed), _arrays(given))


def first_violation(
    exact: StaticMoRViT,
    image: Tensor,
    evaluate: Callable[[Script, Values], Values],
    faults: tuple[type[Exception], ...],
    kind: type[np.floating[Any]] = np.float32,
) -> list[str]:
    """Compare a written graph with one of `exact_copies` under every script; returns the first value that differs.

    `evaluate` runs the written graph: it takes a script and the routers' answers and returns values by name. It
    raises `faults` if the graph does not fit together. `kind` is the type of the file's constants.
    """
    for script in scripts_of(exact):
        wanted = replay(exact, image, script, kind)
        try:
            found = evaluate(script, wanted.given)
        except faults as error:
            return [f"the graph cannot be evaluated: {str(error)[:SHOWN]}"]
        difference = first_difference(wanted.values, found)
        if difference is not None:
            return [f"{difference} from the checkpoint's in float64, with {script.what}"]
    return []


def is_decision(name: str) -> bool:
    """Whether a value follows from the routers' answers alone."""
    return name in ("overflow", "depth") or name.endswith((".order", ".runs"))


class _Skipped:
    """A block that leaves states as they are, where only decisions are compared."""

    unformed = False

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x

    def norm1(self, x: Tensor) -> Tensor:
        return x

    def queries(self, normed: Tensor) -> Tensor:
        return normed

    def keys(self, normed: Tensor) -> KV:
        return KV(normed, normed)

    def finish(self, x: Tensor, q: Tensor, kv: KV, mask: Tensor | None = None) -> Tensor:
        return x


def first_difference(wanted: Values, found: Values) -> str | None:
    """The first value that differs, with its difference; None if all that both have are alike."""
    for name in (name for name in wanted if name in found):
        one, other = wanted[name].reshape(-1), found[name].reshape(-1)
        if one.size != other.size:
            return f"value {name!r} has {other.size} elements, expected {one.size}"
        if one.dtype.kind != "f":
            if (wrong := int((one != other.astype(one.dtype)).sum())) > 0:
                return f"value {name!r} differs in {wrong} of {one.size} elements"
            continue
        limit = VALUE_TOLERANCE * max(1.0, float(np.abs(one[np.isfinite(one)]).max(initial=0.0)))
        equal = (one == other) | np.isnan(one)  # a checkpoint that returns NaN is refused for its logits
        gap = np.where(equal, 0.0, np.abs(one - other.astype(np.float64)))
        if not (gap <= limit).all():
            largest = float(np.nan_to_num(gap, nan=np.inf).max())
            return f"value {name!r} differs by {largest:.3g} (at most {limit:.1g})"
    return None


def _laid_out(z: Tensor, like: Tensor) -> Tensor:
    """(tokens, channels) in the layout of a graph's router logits."""
    return z.T[:, None] if like.ndim == 4 else z  # (channels, 1, tokens) where channels come first


def _rank_by_index(scores: Tensor, needed: int, valued: int) -> tuple[Tensor, Tensor]:
    """As ONNX and the interpreter of Core ML's operators rank; PyTorch's top-k orders ties in any way."""
    values, order = torch.sort(scores, dim=-1, descending=True, stable=True)
    return values[..., :needed], order[..., :needed]


def _rounded(
    thresholds: tuple[float | None, ...], selection: Gathers, kind: type[np.floating[Any]]
) -> tuple[float | None, ...]:
    return tuple(None if t is None else float(kind(selection.threshold(t))) for t in thresholds)


def _with_alpha(config: Config, kind: type[np.floating[Any]]) -> Config:
    if config.router is None:
        return config
    router = config.router.model_copy(update={"alpha": float(kind(config.router.alpha))})
    return config.model_copy(update={"router": router})


def _arrays(tensors: Mapping[str, Tensor]) -> Values:
    return {name: tensor.numpy() for name, tensor in tensors.items()}
