"""What to export, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from morvit_deploy.bundle.images import ImageFolder
from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.calibration.ranges.ranges import METHODS
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.coreml.options import CoremlAsked
from morvit_deploy.exporters.trt.options import TrtAsked
from morvit_deploy.graph.style.words import Variant
from morvit_deploy.model.precision import PRECISIONS, Precision

LARGEST_BATCH = 4096


@dataclass(frozen=True)
class Request:
    """What to export, and how."""

    checkpoint: Path
    out: Path
    batch: int | str = 1  # a number, or "dynamic"
    input: str = "uint8"
    with_depth: bool = False
    form: Variant = "unrolled"
    plan: Path | None = None  # of `calibrate`; without, the checkpoint's own schedule
    dispatch: str | None = (
        None  # where a bucket is chosen, when the plan has several; None: as the target likes
    )
    force: bool = False
    # top-1, of the plan's model with the trained one; below fp32 also what the gate asks of decisions and classes
    min_agreement: float | None = None
    images: Pixels | None = None  # (n, height, width, 3) to verify with
    precision: Precision = "fp32"
    int8_flavor: str | None = None  # the runtime that an int8 graph is for: cpu, unless trt is asked for
    calibration: str | None = None  # how int8 ranges are chosen; None: the default of `calibration.ranges`
    smooth: bool = False  # int8: move difficulty from activations to weights
    max_drop: float | None = None  # int8: points of top-1 at which layers are lifted to float
    calibration_images: ImageFolder | None = None  # that int8 ranges and fp16 probes come from
    allow_worse: bool = False  # let a bundle through that misses its gate, or is not faster
    coreml: CoremlAsked | None = None  # for target coreml, and only there
    trt: TrtAsked | None = None  # for target trt, and only there

    def __post_init__(self) -> None:
        """ConfigError for a value that no bundle can have, before any work is done."""
        allowed_values = (
            ("input", ("uint8", "float")),
            ("form", get_args(Variant)),
            ("dispatch", (None, "graph", "host")),
            ("precision", PRECISIONS),
            ("int8_flavor", (None, "cpu", "trt")),
            ("calibration", (None, *METHODS)),
        )
        for name, allowed in allowed_values:
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(filter(None, allowed))}"
                )
        if self.batch != "dynamic" and not (type(self.batch) is int and 0 < self.batch <= LARGEST_BATCH):
            raise ConfigError(f"batch: got {self.batch!r}, expected 1 to {LARGEST_BATCH} or 'dynamic'")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise ConfigError(f"min_agreement: got {self.min_agreement}, expected a share from 0 to 1")
        if self.plan is not None and self.form != "unrolled":
            raise ConfigError(
                f"form: got {self.form!r} with a plan; a baseline has the checkpoint's own schedule"
            )

        if self.coreml is not None:
            self._check_coreml()
        self._check_trt()
        self._check_precision()

    @property
    def exact(self) -> bool:
        """Are weights and arithmetic those of fp32?"""
        return self.precision == "fp32" and (self.coreml is None or self.coreml.weights == "float")

    def _check_coreml(self) -> None:
        if self.precision == "int8":
            raise ConfigError(
                "precision: got 'int8'; a Core ML package computes in fp16 or fp32 and can store int8: weights='int8'"
            )
        if self.batch != 1:
            raise ConfigError(
                f"batch: got {self.batch!r}; a Core ML package takes one image, an app feeds several in turn"
            )
        if self.form != "unrolled":
            raise ConfigError(f"form: got {self.form!r}; baselines are exported to onnx")

    def _check_trt(self) -> None:
        if self.trt is None:
            if self.precision == "bf16":
                raise ConfigError(
                    "precision: got 'bf16'; only TensorRT runs it (target 'trt'); elsewhere fp16 is as small"
                )
            return
        if self.int8_flavor == "cpu":
            raise ConfigError("int8_flavor: got 'cpu'; TensorRT takes int8 around zero only: leave it out")
        if self.trt.max_batch is not None and self.batch != "dynamic":
            raise ConfigError(
                f"max_batch: got {self.trt.max_batch} with batch {self.batch}; it is for batch 'dynamic'"
            )

    def _check_precision(self) -> None:
        if self.precision == "int8" and self.calibration_images is None:
            raise ConfigError(
                "precision: got 'int8' without images; int8 needs the range of every activation, and only images "
                "like those it will meet show it: give --images DIR"
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
        given = [name for name, asked in of_int8.items() if asked]
        if given and self.precision != "int8":
            raise ConfigError(f"{', '.join(given)}: only int8 has this; precision is {self.precision!r}")
        if self.allow_worse and self.exact:
            raise ConfigError("allow_worse: fp32 has no gate that could be missed; precision is 'fp32'")
