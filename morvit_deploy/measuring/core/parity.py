"""Compares what a device returns with what the bundle does before anything is timed. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.session import Session
from morvit_deploy.exporters.targets import open_session
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.model.answers.gates import gate_for
from morvit_deploy.model.answers.heads import SIGMOID, SOFTMAX, UNDECIDED
from morvit_deploy.model.choices import Output

PARITY_IMAGES = 16  # at least one round
DEVICE_TOLERANCE = 1e-4  # × max(1, max |logit|): as for the conversion gap, float32 round-off over 12 layers
TIES = 1  # images that may differ in any precision: another processor may decide a routing tie differently


@dataclass(frozen=True)
class LogitParity:
    """Logits of some images on a device compared with those expected.

    In fp32 all images but TIES must be within DEVICE_TOLERANCE; below fp32 all classes but TIES must agree, or
    as many as the gate of the precision asks for. Features and tokens decide nothing: below fp32, the median of
    their signal-to-noise ratios must reach the gate's.
    """

    bundle: str
    place: str  # where the bundle ran, as in "on board"
    precision: str
    max_abs: Sequence[float | None]  # largest |Δlogit| of each image; None where it is not finite
    scale: float  # largest |logit| expected
    same_class: int  # images
    # of features and tokens: power of each image's differences, as a share of its own; None where it is not finite
    noise: Sequence[float | None] = ()

    @classmethod
    def of(
        cls, bundle: str, place: str, precision: str, found: Mapping[str, Any], activation: str = SOFTMAX
    ) -> LogitParity:
        """From what `agent.parity` returns; `activation` of the head decides what another class is."""
        if activation == UNDECIDED:
            same = len(found["max_abs"])
            return cls(bundle, place, precision, found["max_abs"], found["scale"], same, found["noise"])
        same = found["same_signs" if activation == SIGMOID else "same_class"]
        return cls(bundle, place, precision, found["max_abs"], found["scale"], same)

    @property
    def images(self) -> int:
        """How many were compared."""
        return len(self.max_abs)

    @property
    def tolerance(self) -> float:
        """Largest |Δlogit| that counts as equal."""
        return DEVICE_TOLERANCE * max(1.0, self.scale)

    @property
    def apart(self) -> int:
        """Images beyond the tolerance."""
        return sum(gap is None or gap > self.tolerance for gap in self.max_abs)

    @property
    def widest(self) -> float | None:
        """Largest |Δlogit| of all images; None where one is not finite."""
        finite = [gap for gap in self.max_abs if gap is not None]
        return max(finite) if len(finite) == self.images else None

    @property
    def agrees(self) -> bool:
        """Does the device compute the same model?"""
        gate = gate_for(self.precision, None)
        if gate is None:
            return self.apart <= TIES and self.apart < self.images
        if self.noise:
            return self.widest is not None and self.snr_db >= gate.snr_db
        allowed = max(TIES, gate.allowed_flips(self.images))
        return self.widest is not None and self.images - self.same_class <= allowed

    @property
    def snr_db(self) -> float:
        """Median signal-to-noise ratio of the images' features or tokens."""
        shares = [math.inf if share is None else share for share in self.noise]
        middle = median(shares)
        return math.inf if middle == 0 else -10 * math.log10(middle)

    @property
    def problem(self) -> str:
        """How much the logits, or the features or tokens, differ."""
        most = "not finite" if self.widest is None else f"{self.widest:.3g}"
        what = "numbers" if self.noise else "logits"
        decided = (
            f"the median signal-to-noise ratio is {self.snr_db:.1f} dB"
            if self.noise
            else f"{self.images - self.same_class} have another class"
        )
        return (
            f"{self.bundle} returns other {what} {self.place} than expected, and was not measured: of {self.images} "
            f"images {self.apart} differ by more than {self.tolerance:.3g} (largest difference: {most}) and "
            f"{decided}; compare the runtimes' versions, or export it "
            "again for that device"
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "max_abs": self.widest,
            "tolerance": self.tolerance,
            "apart": self.apart,
            **self._decisions(),
        }

    def _decisions(self) -> dict[str, Any]:
        """How many classes differ; of features and tokens their signal-to-noise ratio."""
        if not self.noise:
            return {"class_flips": self.images - self.same_class}
        return {"snr_db": self.snr_db if math.isfinite(self.snr_db) else None}  # None: equal, or not finite


def parity_rounds(subject: Subject) -> int:
    """Number of rounds that hold PARITY_IMAGES pictures, or all rounds."""
    return min(len(subject.rounds), max(1, PARITY_IMAGES // subject.batch))


def save_expected(file: BinaryIO | Path, output: Output, answers: NDArray[np.float32]) -> None:
    """Write expected logits, features or tokens as the agent reads them: one array, with the name of the output."""
    arrays: dict[str, Any] = {output: answers}
    np.savez(file, **arrays)


def expected_answers(subject: Subject, session: Session | None = None) -> NDArray[np.float32]:
    """(images, …) of the first rounds, by the bundle's own runner in this process or by `session`."""
    pixels = np.load(subject.pixels, mmap_mode="r", allow_pickle=False)[: parity_rounds(subject)]
    with session or open_session(subject.bundle) as opened:
        return np.concatenate([opened.answer(np.ascontiguousarray(batch)) for batch in pixels])
