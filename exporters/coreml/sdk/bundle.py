"""A bundle for Apple's runtimes as its manifest describes it. numpy and the standard library: projects carry it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import BundleError, TargetError
from morvit_deploy.exporters.functions.devices import MODELS
from morvit_deploy.exporters.functions.names import plain_name
from morvit_deploy.strict_json import read_json

MANIFEST, BUNDLE_FORMAT = "manifest.json", "morvit-bundle/2"
FIRST_FORMAT = "morvit-bundle/1"  # has the entry of target coreml under its name
STEM = "stem"
_CHUNK = 1 << 20

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class BucketShape:
    """One bucket of the plan."""

    name: str
    macs: int
    share: float | None


@dataclass(frozen=True)
class PlanShape:
    """The part of a plan that a `Mix` needs."""

    mode: str
    buckets: tuple[BucketShape, ...]
    calibration: Mapping[str, Any] | None

    def bucket(self, name: str) -> BucketShape:
        """The bucket of that name."""
        return next(bucket for bucket in self.buckets if bucket.name == name)


@dataclass(frozen=True)
class Package:
    """A bundle for Apple's devices: one model, its functions, and what they take."""

    folder: Path
    path: Path  # the model
    precision: str
    form: str
    input: str  # uint8: an RGB picture; float: normalised float32 (1, 3, height, width)
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ios: int  # the oldest system that loads it
    functions: tuple[str, ...]
    carried: tuple[str, ...]  # Core ML's names of what the stem hands to a trunk
    plan: PlanShape
    file_bytes: int
    target: str = "coreml"

    @property
    def adaptive(self) -> bool:
        """Is a bucket chosen for each image?"""
        return STEM in self.functions

    @property
    def macs(self) -> dict[str, int]:
        """Of one image, for each bucket."""
        return {bucket.name: bucket.macs for bucket in self.plan.buckets}

    def trunk(self, bucket: str) -> str:
        """The function that runs a bucket."""
        return bucket if self.adaptive else self.functions[0]

    def array(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (height, width, 3) as the program's own float32 (1, 3, height, width): 0 … 255, or normalised."""
        values = pixels.astype(np.float64)
        if self.input == "float":
            values = (values / 255 - np.asarray(self.mean)) / np.asarray(self.std)
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)


def read_package(folder: Path) -> Package:
    """Read the manifest and check every file; BundleError when it is not as exported, TargetError for others."""
    try:
        known = read_json(folder / MANIFEST, BundleError, advice="expected an exported bundle")
    except OSError as error:
        raise BundleError(f"cannot read {folder / MANIFEST}: {error}; expected an exported bundle") from None
    if not isinstance(known, dict) or known.get("format") not in (BUNDLE_FORMAT, FIRST_FORMAT):
        raise BundleError(f"{folder / MANIFEST} is no {BUNDLE_FORMAT} manifest; expected an exported bundle")
    check_target(folder, str(known.get("target")))
    if (
        isinstance(size := known.get("config", {}).get("image_size"), list)
        or known["config"]["in_channels"] != 3
    ):
        shape = f"{size} pixels, {known['config'].get('in_channels')} channels"
        raise TargetError(
            f"{folder} takes images of {shape}; a Mac and an iPhone are measured with square RGB pictures"
        )
    try:
        package = _package(folder, known)
        problems = [problem for file in known["files"] if (problem := _problem(folder, file))]
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise BundleError(
            f"{folder / MANIFEST}: {error!r} is missing or of another kind; export it again"
        ) from None
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise BundleError(f"{folder} is not as it was exported; export it again:\n{listed}")
    return package


def check_target(folder: Path, target: str) -> None:
    """TargetError for a bundle that no runtime of Apple's runs, with the line that makes one."""
    if target not in MODELS:
        raise TargetError(
            f"{folder} is a bundle of target {target!r}; a Mac and an iPhone measure target 'coreml': "
            "make one with `morvit-deploy export CHECKPOINT --target coreml -o OTHER`"
        )


def _package(folder: Path, known: Mapping[str, Any]) -> Package:
    config, plan = known["config"], known["plan"]
    form = known["coreml" if known["format"] == FIRST_FORMAT else "target_form"]
    buckets = [BucketShape(b["name"], known["macs"][b["name"]], b.get("share")) for b in plan["buckets"]]
    tops = (Path(file["path"]).parts[0] for file in known["files"])
    target = known["target"]
    package = next(top for top in tops if top.endswith(MODELS[target].suffix))
    return Package(
        folder=folder,
        path=folder / package,
        precision=known["precision"],
        form=known["form"],
        input=known["input"],
        image_size=config["image_size"],
        mean=tuple(known["preprocess"]["mean"]),
        std=tuple(known["preprocess"]["std"]),
        ios=MODELS[target].ios or form["ios"],
        functions=tuple(form["functions"]),
        carried=tuple(plain_name(port["name"]) for port in known["carried"]),
        plan=PlanShape(plan["mode"], tuple(buckets), plan.get("calibration")),
        file_bytes=sum(file["bytes"] for file in known["files"]),
        target=target,
    )


def _problem(folder: Path, file: Mapping[str, Any]) -> str | None:
    path = folder / file["path"]
    if Path(file["path"]).is_absolute() or ".." in Path(file["path"]).parts:
        return f"{file['path']}: leaves the bundle"
    if not path.is_file():
        return f"{file['path']}: missing"
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return (
        None
        if digest.hexdigest() == file["sha256"]
        else f"{file['path']}: content differs from the manifest's"
    )
