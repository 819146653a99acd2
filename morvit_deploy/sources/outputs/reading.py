"""The file of `--reference`: the user's images or inputs, and the logits of the user's own model. Numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core.recipe import sha256_of
from morvit_deploy.errors import ConfigError, listed
from morvit_deploy.model.config import Config
from morvit_deploy.sources.outputs.npz import Array, Npz, open_npz

OPTION = "--reference"
LIMIT = 64  # images compared: the float64 reference runs them one by one, and a wrong reading shows in each
NAMES = ("images", "inputs", "logits", "labels")
_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class SourceOutputs:
    """The first images of the file and the source's logits for them."""

    sha256: str
    given: Literal["images", "inputs"]
    pictures: NDArray[
        Any
    ]  # images: uint8 (n, height, width, 3); inputs: normalized floats (n, 3, height, width)
    logits: NDArray[Any]  # (n, classes)
    total: int  # images in the file

    def normalised(self, config: Config) -> NDArray[np.float64]:
        """The model's input, float64 (n, 3, height, width)."""
        if self.given == "inputs":
            return self.pictures.astype(np.float64)
        mean, std = np.array(config.preprocess.mean), np.array(config.preprocess.std)
        scaled = (self.pictures / 255 - mean) / std
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def read_outputs(path: str | Path, config: Config) -> SourceOutputs:
    """Read and check the file; ConfigError names everything in it that does not fit the model."""
    path = Path(path)
    with open_npz(path, OPTION) as file:
        if problems := [*_names(file.arrays), *_shapes(file.arrays, config)]:
            raise ConfigError(f"{OPTION}: {path} does not fit this model:\n{listed(problems)}")
        given: Literal["images", "inputs"] = "images" if "images" in file.arrays else "inputs"
        pictures, logits = file.rows(given, LIMIT), file.rows("logits", LIMIT)
        problems = [*_values(given, pictures), *_values("logits", logits), *_labels(file, config)]
        total = file.arrays["logits"].shape[0]
    if problems:
        raise ConfigError(f"{OPTION}: {path} cannot be compared:\n{listed(problems)}")
    return SourceOutputs(sha256_of(path), given, pictures, logits, total)


def _names(arrays: Mapping[str, Array]) -> list[str]:
    """Problems with which arrays there are."""
    problems = []
    if "images" in arrays and "inputs" in arrays:
        problems.append(
            "got images and inputs, expected one of them: images before normalization, or inputs after"
        )
    if "images" not in arrays and "inputs" not in arrays:
        problems.append(
            f"got {', '.join(arrays)}, expected images (uint8 pictures) or inputs (normalized floats)"
        )
    if "logits" not in arrays:
        problems.append(f"got {', '.join(arrays)}, expected logits: what your own model returned")
    unknown = [name for name in arrays if name not in NAMES]
    return problems + [
        f"{name}: unknown array, expected {', '.join(NAMES)}; leave it out" for name in unknown
    ]


def _shapes(arrays: Mapping[str, Array], config: Config) -> list[str]:
    """Problems with types, shapes and numbers, which the headers show."""
    side = config.image_size
    expected = {
        "images": (
            ("uint8",),
            ("n", side, side, 3),
            "pictures as your model takes them, after resize and crop",
        ),
        "inputs": (_FLOATS, ("n", 3, side, side), "normalized"),
        "logits": (_FLOATS, ("n", config.num_classes), f"{config.num_classes} classes"),
    }
    problems = []
    for name, (dtypes, shape, what) in expected.items():
        array = arrays.get(name)
        if array is None:
            continue
        if array.dtype.name not in dtypes or len(array.shape) != len(shape) or array.shape[1:] != shape[1:]:
            wanted = ", ".join(map(str, shape))
            problems.append(f"{name}: got {array}, expected {' or '.join(dtypes)} [{wanted}]: {what}")
        elif not array.in_rows:
            problems.append(f"{name}: stored in Fortran order; save numpy.ascontiguousarray({name})")
        elif not array.shape[0]:
            problems.append(f"{name}: got 0 images, expected at least 1")
    counts = {name: arrays[name].shape[0] for name in expected if name in arrays and arrays[name].shape}
    if len({*counts.values()}) > 1:
        numbers = ", ".join(f"{number} {name}" for name, number in counts.items())
        problems.append(f"got {numbers}, expected one row of logits for each image")
    return problems


def _values(name: str, rows: NDArray[Any]) -> list[str]:
    """Problems with values."""
    flat = rows.reshape(len(rows), -1)
    if bad := np.flatnonzero(~np.isfinite(flat).all(axis=1)).tolist():
        return [
            f"{name}: NaN or infinite values in {len(bad)} of {len(rows)} images, first in image {bad[0]}"
        ]
    if name != "logits" and (flat == flat[:, :1]).all():
        return [
            f"{name}: every image has one value throughout; blank images hide most differences, give pictures"
        ]
    if name == "logits" and not flat.any():
        return ["logits: all are zero, so nothing can be compared"]
    return []


def _labels(file: Npz, config: Config) -> list[str]:
    """Problems with the optional names of the classes, which must be those of the checkpoint in its order."""
    array = file.arrays.get("labels")
    if array is None:
        return []
    if array.dtype.kind != "U" or array.shape != (config.num_classes,):
        return [
            f"labels: got {array}, expected the names of the {config.num_classes} classes, in order of the logits"
        ]
    names = file.rows("labels", config.num_classes).tolist()
    for number, (name, own) in enumerate(zip(names, config.labels or names, strict=True)):
        if name != own:
            return [
                f"labels: class {number} is {name!r}, in the checkpoint {own!r}; logits must be in its order"
            ]
    return []
