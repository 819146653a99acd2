"""The bundle: a folder with the graphs, the weights once, and `manifest.json`. No torch.

Opening checks the format, and each file's name, size and hash. Nothing is ever unpickled.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from morvit_deploy.agent.core.recipe import sha256_of
from morvit_deploy.bundle.formats import FORMAT, upgraded
from morvit_deploy.bundle.forms import TargetForm, read_form
from morvit_deploy.bundle.known import known_target
from morvit_deploy.errors import BundleError
from morvit_deploy.files import check_utf8
from morvit_deploy.model.answers.gates import Gate
from morvit_deploy.model.answers.heads import UNDECIDED
from morvit_deploy.model.choices import Dispatch, Input, Output, Precision, Variant
from morvit_deploy.model.config import Config, Preprocess
from morvit_deploy.model.plan import Plan, plan_problems
from morvit_deploy.model.precision import Lowering
from morvit_deploy.report import numbered, size
from morvit_deploy.sources.outputs.gap import SourceGap
from morvit_deploy.strict_fields import Count, Strict, explain

MANIFEST = "manifest.json"


class BundleFile(Strict):
    """One file of the bundle, by name inside the folder."""

    path: str
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\\" in path or ":" in path:
            raise ValueError(f"files: got path {path!r}, expected a name inside the bundle")
        return path


class Port(Strict):
    """An input or output of the graph; a dimension is a number or the name of a dynamic one."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Source(Strict):
    """The checkpoint the bundle was made from."""

    sha256: str
    parameters: Count


class Manifest(Strict):
    """What a program needs to use the bundle, and how the bundle was made."""

    format: Literal["morvit-bundle/2"]
    target: str
    target_form: SerializeAsAny[TargetForm]  # the target's own entry; `target` says which class it has
    precision: Precision
    lowering: Lowering | None = None  # how it came below fp32
    form: Variant
    dispatch: Dispatch  # single: one bucket; graph or host: where the bucket is chosen
    batch: Count | Literal["dynamic"]
    input: Input
    # whether the last block's K and V are never formed (rewrite 6) where that costs less; older bundles form them
    unformed_keys: bool = False
    output: Output = "logits"  # what the graph returns, and the name of its output
    config: Config
    plan: Plan
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    checkpoint: Source
    files: Annotated[tuple[BundleFile, ...], Field(min_length=1)]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    carried: tuple[Port, ...]  # passed from a stem to a trunk, with dispatch `host`
    # values inside the graphs; where there are several buckets, prefixed with BUCKET/
    probes: tuple[str, ...]
    macs: dict[str, Count]
    structure: dict[str, Any]
    parity: dict[str, Any] | None
    reference: SourceGap | None = None  # the check of the checkpoint's reading, by `export` or `convert`
    versions: dict[str, str]

    @field_validator("target_form", mode="before")
    @classmethod
    def _is_of_the_target(cls, given: object, info: ValidationInfo) -> TargetForm:
        if "target" not in info.data:
            return TargetForm()  # the missing target is reported
        return read_form(info.data["target"], given, as_json=info.mode == "json")

    @model_validator(mode="after")
    def _agrees_with_config(self) -> Manifest:
        problems = [
            f"{field}: differs from config.{field}"
            for field in ("preprocess", "labels")
            if getattr(self, field) != getattr(self.config, field)
        ]
        if self.exact != (self.lowering is None):
            problems.append(f"lowering: expected below fp32 and only there; precision is {self.precision!r}")
        target = known_target(self.target)
        if self.precision not in target.precisions:
            problems.append(f"precision: {self.precision!r} with target {self.target!r}")
        problems += [f"target_form.{problem}" for problem in self.target_form.problems(self)]
        if not self.exact and self.form != "unrolled":
            problems.append(f"form: {self.form!r} in {self.precision}")
        if self.form == "unrolled":
            problems += [f"plan.{problem}" for problem in plan_problems(self.plan, self.config)]
        if self.plan.checkpoint not in (None, self.checkpoint.sha256):
            problems.append("plan.checkpoint: differs from checkpoint.sha256")
        shape, channels = self.config.image_shape, self.config.in_channels
        nhwc, nchw = ("uint8", (*shape, channels)), ("float32", (channels, *shape))
        wanted = nhwc if self.input == "uint8" else nchw
        for port in self.inputs:
            if (
                len(port.shape) != 4
                or (port.dtype, port.shape[1:]) != wanted
                or isinstance(port.shape[0], str) != (self.batch == "dynamic")
            ):
                problems.append(
                    f"inputs.{port.name}: {port.dtype} {list(port.shape)} is not {self.input} input"
                )
            elif self.batch != "dynamic" and port.shape[0] != self.batch:
                problems.append(f"inputs.{port.name}: batch {port.shape[0]}, expected {self.batch}")
        whole, truth = target.integers
        outputs: dict[str, tuple[str | int, ...]] = {
            "logits": ("float32", self.config.num_classes),
            "features": ("float32", self.config.embed_dim),
            "tokens": ("float32", self.config.num_patches, self.config.embed_dim),
            "depth": (whole, self.config.num_patches),
            "bucket": ("int32",),
            "overflow": (truth,),
        }
        names = {port.name for port in self.outputs}
        needed = {self.output, "bucket"} if self.plan.adaptive else {self.output}
        problems += [f"outputs: {name} is missing" for name in sorted(needed - names)]
        if self.form != "unrolled" and self.plan.adaptive:
            problems.append(f"form: {self.form!r} with {len(self.plan.buckets)} buckets in the plan")
        if (self.dispatch == "single") == self.plan.adaptive:
            problems.append(f"dispatch: {self.dispatch!r} with {len(self.plan.buckets)} buckets in the plan")
        for port in self.outputs:
            if port.name in outputs and (port.dtype, *port.shape[1:]) != outputs[port.name]:
                dtype, *rest = outputs[port.name]
                problems.append(
                    f"outputs.{port.name}: {port.dtype} {list(port.shape)}, expected {dtype} "
                    f"[{', '.join(['batch', *map(str, rest)])}]"
                )
        ports = {port.name for port in (*self.inputs, *self.outputs)}
        if len({*self.probes}) != len(self.probes) or ports & {*self.probes}:
            problems.append("probes: expected each once, and none that is an input or output")
        if problems:
            raise ValueError("\n".join(f"{problem}; the manifest was edited by hand" for problem in problems))
        return self

    @property
    def described(self) -> str:
        """What a bundle is, in a few words: `target='onnx', fp32, 3 buckets`."""
        batch = "" if self.batch == 1 else f", batch {self.batch}"
        form = "" if self.form == "unrolled" else f", form {self.form}"
        form += "" if self.output == "logits" else f", output {self.output}"
        buckets = numbered(len(self.plan.buckets), "bucket")
        return f"target={self.target!r}, {self.precision}, {buckets}{batch}{form}"

    def __repr__(self) -> str:
        return f"Manifest({self.described}, {size(sum(file.bytes for file in self.files))})"

    __str__ = __repr__

    @property
    def head(self) -> str:
        """The activation of the head, which decides what classes an output stands for; features stand for none."""
        return self.config.head_activation if self.output == "logits" else UNDECIDED

    @property
    def exact(self) -> bool:
        """Are weights and arithmetic those of fp32, so that each image's logits can be held to a tolerance?"""
        return self.precision == "fp32" and self.target_form.exact

    def gate(self, min_agreement: float | None) -> Gate | None:
        """How many decisions and classes must agree with the checkpoint's; None for an exact bundle.

        Compressed weights have int8's gate, whatever the precision of the products.
        """
        if self.exact:
            return None
        kind = self.precision if self.target_form.exact else "int8"
        gate = known_target(self.target).gates[kind]
        return gate if min_agreement is None else gate.accepting(min_agreement)

    def probes_of(self, bucket: str | None) -> list[str]:
        """Names of the values inside one bucket's graph, as `one_bucket` leaves them."""
        parts = [name.rpartition("/") for name in self.probes]
        return [name for owner, _, name in parts if owner in ("", bucket)]

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        return self.model_dump_json(indent=2) + "\n"


def describe_files(folder: Path, names: list[str]) -> tuple[BundleFile, ...]:
    """Size and hash of each named file."""
    return tuple(
        BundleFile(path=name, bytes=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
        for name in names
    )


def open_manifest(folder: str | Path) -> Manifest:
    """Read and check a bundle; BundleError names each file that differs and how."""
    folder = Path(folder)
    path = folder / MANIFEST
    check_utf8(folder, BundleError)
    try:
        text = path.read_bytes()
    except OSError as error:
        if (folder / "config.json").is_file():
            raise BundleError(
                f"{folder} is a checkpoint, not a bundle; `morvit-deploy export` makes one of it"
            ) from None
        raise BundleError(
            f"cannot read {path}: {error.strerror}; a bundle is a folder that `morvit-deploy export` wrote"
        ) from None
    try:
        manifest = Manifest.model_validate_json(upgraded(text, path))
    except ValidationError as error:
        raise BundleError(f"{path} is not a {FORMAT} manifest:\n{explain(error)}") from None
    names = [bucket.name for bucket in manifest.plan.buckets]
    if sorted(manifest.macs) != sorted(names):
        raise BundleError(
            f"{path}: got macs of {sorted(manifest.macs)}, expected the buckets {sorted(names)}"
        )
    problems = [problem for file in manifest.files if (problem := _file_problem(folder, file))]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise BundleError(f"{folder} is not as it was exported; export it again:\n{listed}")
    return manifest


def _file_problem(folder: Path, file: BundleFile) -> str | None:
    path = folder / file.path
    if not os.path.isfile(path):  # noqa: PTH113  # False for a name that is too long, too
        return f"{file.path}: missing"
    size = path.stat().st_size
    if size != file.bytes:
        return f"{file.path}: {size:,} bytes, expected {file.bytes:,}"
    if sha256_of(path) != file.sha256:
        return f"{file.path}: content differs from the manifest's sha256"
    return None
