"""What to export, and how: a request from Python's keywords or the command line's options.

Light: `export --help` imports it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.options import Help, TargetOptions, check_choices
from morvit_deploy.exporters.targets import Target, find_target
from morvit_deploy.model.choices import (
    PRECISION_WORDS,
    PRECISIONS,
    Input,
    Int8Flavor,
    Method,
    Output,
    Precision,
    Variant,
)

if TYPE_CHECKING:
    from morvit_deploy.exporters.pictures import Pictures
    from morvit_deploy.model.plan import Plan
else:
    Plan = object  # the command line reads the field's type, and --help does without pydantic

LARGEST_BATCH = 4096
PLAN, PRECISION = "Plan", "Precision"  # headings of the command line's help
DEFAULT_LIMIT = 32  # images of a folder for verification
CALIBRATION_LIMIT = 256  # further images for int8 ranges and fp16 probes


@dataclass(frozen=True)
class Request:
    """What to export, and how. Fields with a `Help` are options of the command line."""

    checkpoint: Path
    out: Path
    target: Annotated[
        str, Help("Where it will run; `doctor` lists the targets.", "NAME", show_default=True)
    ] = "onnx"
    plan: Annotated[
        Path | Plan | None,
        Help("Plan file of `calibrate` (default: the checkpoint's own schedule, one bucket).", panel=PLAN),
    ] = None
    merge: Annotated[
        str | None,
        Help(
            "Plain ViT: merge N similar tokens at each layer but the last (token merging, no training); a number for "
            "each of them, or a file of `calibrate`.",
            "N|N,N,…|FILE",
            panel=PLAN,
        ),
    ] = None
    merge_to: Annotated[
        float | None,
        Help("Plain ViT: merge tokens until this share is left, as many at each layer.", panel=PLAN),
    ] = None
    proportional_attention: Annotated[
        bool,
        Help("With --merge: attend to a merged token as often as it has tokens.", panel=PLAN),
    ] = False
    dispatch: Annotated[
        Literal["graph", "host"] | None,
        Help(
            "For a plan of several buckets. graph: one graph that chooses the bucket itself (onnx: default); host: a "
            "stem and a trunk per bucket, chosen by the caller (coreml, coreai: the only one).",
            panel=PLAN,
        ),
    ] = None
    batch: int | Literal["dynamic"] = 1
    input: Annotated[
        Input,
        Help(
            "Input of the graph. uint8: NHWC pixels (coreml: an image); float: normalized NCHW.",
            show_default=True,
        ),
    ] = "uint8"
    with_depth: Annotated[bool, Help("Also return each token's depth.")] = False
    output: Annotated[
        Output,
        Help(
            "What it returns. logits: of the classes; features: the vector that the head reads; tokens: the state of "
            "every patch after the last layer.",
            show_default=True,
        ),
    ] = "logits"
    form: Annotated[
        Variant, Help("unrolled, or one of two baselines to measure against.", show_default=True)
    ] = "unrolled"
    precision: Annotated[
        Precision,
        Help(
            "onnx: fp32 (default), fp16 (for GPUs), int8 (a quarter of the size, requires --images), w8 or w4 (only "
            "weights, in blocks of 8 or 4 bits: a quarter or a sixth of the size); routers stay in fp32. "
            "coreml: fp16 (default) or fp32. coreai: fp32 (default) or fp16. "
            "trt: fp16 (default), fp32, int8 or bf16.",
            panel=PRECISION,
            also=PRECISION_WORDS,
        ),
    ] = "fp32"
    int8_flavor: Annotated[
        Int8Flavor | None,
        Help(
            "int8. cpu: as ONNX Runtime computes it (default); trt: symmetric, for TensorRT.", panel=PRECISION
        ),
    ] = None
    calibration: Annotated[
        Method | None,
        Help(
            "int8 ranges: percentile (99.99 % of the values; default), minmax, or entropy.", panel=PRECISION
        ),
    ] = None
    calibration_limit: Annotated[
        int,
        Help(
            "Images of --images for int8 ranges or fp16 probes, beside those of --limit (default: 256).",
            least=1,
            panel=PRECISION,
        ),
    ] = CALIBRATION_LIMIT
    smooth: Annotated[
        bool, Help("int8: SmoothQuant, which moves outliers from activations to weights.", panel=PRECISION)
    ] = False
    max_drop: Annotated[
        float | None,
        Help(
            "int8: maximum top-1 drop in percentage points (without labels, of agreement); the worst layers stay in "
            "float until it is met.",
            least=0,
            most=100,
            panel=PRECISION,
        ),
    ] = None
    allow_worse: Annotated[
        bool,
        Help(
            "Keep a bundle that misses its accuracy gate or is not faster than fp32, or whose plan ruins the model.",
            panel=PRECISION,
        ),
    ] = False
    images: Path | None = (
        None  # folder to verify and to calibrate with; None: synthetic images, and no calibration
    )
    limit: int = DEFAULT_LIMIT
    upscale: bool = False
    exif: bool = False  # turn pictures by their EXIF orientation
    # top-1 agreement of the plan's model with the trained one; below fp32 also the gate for decisions and classes
    min_agreement: float | None = None
    reference: Path | None = (
        None  # the source's own outputs, which the reading of the checkpoint is checked against
    )
    force: bool = False
    options: TargetOptions = field(default_factory=TargetOptions)  # the target's own

    def __post_init__(self) -> None:
        """ConfigError for an invalid value or combination, before any work is done."""
        if type(self.options) is TargetOptions:
            object.__setattr__(self, "options", self._target.options())
        check_choices(self)
        if not isinstance(self.options, self._target.options):
            raise ConfigError(f"options: got {self.options!r}, which are not of target {self.target!r}")
        if self.batch != "dynamic" and not (type(self.batch) is int and 0 < self.batch <= LARGEST_BATCH):
            raise ConfigError(f"batch: got {self.batch!r}, expected 1 to {LARGEST_BATCH} or 'dynamic'")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise ConfigError(f"min_agreement: got {self.min_agreement}, expected a share from 0 to 1")
        if self.plan is not None and self.form != "unrolled":
            raise ConfigError(
                f"form: got {self.form!r} with a plan; a baseline has the checkpoint's own schedule"
            )
        self._check_merging()
        if self.calibration_limit < 1:
            raise ConfigError(f"calibration_limit: got {self.calibration_limit}, expected at least 1 image")
        if self.precision not in self._target.precisions:
            raise ConfigError(f"precision: got {self.precision!r}; {self._target.why_not_in(self.precision)}")
        self.options.check(self)
        self._check_precision()
        self._check_output()

    @property
    def merges(self) -> bool:
        """Whether tokens of a plain ViT are to merge."""
        return self.merge is not None or self.merge_to is not None

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Files and folders that the export reads."""
        read = (self.checkpoint, self.plan, self.images, self.reference, *vars(self.options).values())
        return tuple(path for path in read if isinstance(path, Path))

    @property
    def _target(self) -> Target:
        return find_target(self.target)

    @property
    def exact(self) -> bool:
        """Are weights and arithmetic those of fp32?"""
        return self.precision == "fp32" and self.options.exact

    @cached_property
    def pictures(self) -> Pictures:
        """Read from the folder `images`, once. ImageError for a folder that cannot be used."""
        from morvit_deploy.exporters.pictures import read_pictures

        return read_pictures(self)

    def _check_merging(self) -> None:
        if self.merge is not None and self.merge_to is not None:
            raise ConfigError("merge_to: got it beside merge, expected one of them")
        if self.merges and self.plan is not None:
            raise ConfigError(
                "merge: got it with a plan, expected one of them: a plain ViT has nothing to plan"
            )
        if self.proportional_attention and not self.merges:
            raise ConfigError("proportional_attention: no tokens merge; give merge or merge_to, too")

    def _check_output(self) -> None:
        """ConfigError for an output that the form, the precision or the target does not support."""
        if self.output == "logits":
            return
        if self.form != "unrolled":
            raise ConfigError(f"output: got {self.output!r} in form {self.form!r}; baselines return logits")
        if PRECISIONS[self.precision].ranges or not self.options.any_output:
            what = self.precision if PRECISIONS[self.precision].ranges else "with these options"
            raise ConfigError(
                f"output: got {self.output!r} {what}, which is judged by its classes; expected logits, or fp32 or "
                "fp16"
            )
        if self.output not in self._target.outputs:
            raise ConfigError(
                f"output: got {self.output!r}, and target {self.target!r} returns {' or '.join(self._target.outputs)}"
            )

    def _check_precision(self) -> None:
        record = PRECISIONS[self.precision]
        if record.calibration == "required" and self.images is None:
            raise ConfigError(
                f"precision: got {self.precision!r} without images; {record.why_required}: give --images DIR"
            )
        if self.precision != "fp32" and self.form != "unrolled":
            raise ConfigError(f"form: got {self.form!r} in {self.precision}; baselines are exported in fp32")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ConfigError(f"max_drop: got {self.max_drop}, expected points of top-1 from 0 to 100")
        of_int8 = {
            "int8_flavor": self.int8_flavor is not None,
            "calibration": self.calibration is not None,
            "smooth": self.smooth,
            "max_drop": self.max_drop is not None,
        }
        given = [name for name, is_given in of_int8.items() if is_given]
        if given and not record.ranges:
            raise ConfigError(f"{', '.join(given)}: only int8 has this; precision is {self.precision!r}")
        if self.allow_worse and self.exact and self.plan is None:
            raise ConfigError("allow_worse: fp32 has no gate that could be missed; precision is 'fp32'")
