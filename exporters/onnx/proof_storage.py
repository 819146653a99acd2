"""Where a bundle's files store its weights: each once, and little else beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx
from onnx import external_data_helper, numpy_helper

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
from morvit_deploy.exporters.onnx.proof_precision import Promise, Storing, content_key

SIZE_FACTOR, SIZE_SLACK = 1.02, 500_000  # files against the bytes of the unique parameters; slack per bucket


def storage_violations(
    stored: Mapping[str, set[str]],
    promised: Mapping[str, Promise],
    integers: Mapping[str, str],
    storing: Storing,
) -> list[str]:
    """Over all files, each weight is stored once, as integers where `storing` says so. `stored` is from `places`."""
    floats = {key: promise for key, promise in promised.items() if key in stored}
    return [
        *(
            f"weight {promise.name!r} is stored {len(stored[key])} times, expected once: {sorted(stored[key])}"
            for key, promise in floats.items()
            if len(stored[key]) != 1 and not storing.is_integer(promise)
        ),
        *(
            f"weight {name!r} is stored as {storing.kind} {len(stored[key])} times, expected once: "
            f"{sorted(stored[key])}"
            for key, name in integers.items()
            if key in stored and len(stored[key]) != 1
        ),
        *(
            f"a float copy of the {storing.kind} weight {promise.name!r} is left: {sorted(stored[key])}"
            for key, promise in floats.items()
            if storing.is_integer(promise)
        ),
    ]


def size_violations(
    file_bytes: int, promised: Iterable[Promise], manifest: Manifest, storing: Storing, beside: int
) -> list[str]:
    """The files are hardly larger than the unique weights and the table of positions, which grows with the image.

    `beside` are the bytes of all other parameters. Beside weights in blocks they count: biases and positions in float
    are a tenth of such files.
    """
    positions = 4 * manifest.config.num_tokens * manifest.config.embed_dim
    stored = sum(map(storing.stored_bytes, promised)) + (beside if storing.in_blocks else positions)
    limit = int(SIZE_FACTOR * stored + SIZE_SLACK * len(manifest.plan.buckets))
    if file_bytes <= limit:
        return []
    return [f"the files take {file_bytes:,} bytes, at most {limit:,} expected"]


def places(folder: Path, models: Iterable[onnx.ModelProto]) -> dict[str, set[str]]:
    """Content key of every initializer of two elements or more, read or not, to the places where it is stored."""
    found: dict[str, set[str]] = {}
    keys: dict[str, str] = {}  # each place is read once
    for init in _initializers(models):
        if math.prod(init.dims) <= 1:
            continue
        place = init.name
        if external_data_helper.uses_external_data(init):
            info = external_data_helper.ExternalDataInfo(init)
            place = f"{info.location} at {info.offset} as {list(init.dims)}"
        if place not in keys:
            keys[place] = content_key(numpy_helper.to_array(init, str(folder)))
        found.setdefault(keys[place], set()).add(place)
    return found


def stored_bytes(models: Iterable[onnx.ModelProto]) -> int:
    """Bytes of all initializers; a place in the file of weights counts once."""
    outside: dict[str, int] = {}
    inline = 0
    for init in _initializers(models):
        if external_data_helper.uses_external_data(init):
            place = external_data_helper.ExternalDataInfo(init)
            outside[f"{place.location}:{place.offset}"] = place.length or 0
        else:
            inline += numpy_helper.to_array(init).nbytes
    return inline + sum(outside.values())


def _initializers(models: Iterable[onnx.ModelProto]) -> Iterator[onnx.TensorProto]:
    for model in models:
        for graph in every_graph(model.graph):
            yield from graph.initializer
