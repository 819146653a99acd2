"""Compares a device's logits with the bundle's before anything is timed. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.session import Session
from morvit_deploy.exporters.targets import open_session
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.model.answers.gates import gate_for
from morvit_deploy.model.answers.heads import SIGMOID, SOFTMAX

PARITY_IMAGES = 16  # at least one round
DEVICE_TOLERANCE = 1e-4  # × max(1, max |logit|): as for the conversion gap, float32 round-off over 12 layers
TIES = 1  # images that may differ in any precision: another processor may decide a routing tie differently


@dataclass(frozen=True)
class LogitParity:
    """Logits of some images on a device compared with those expected.

    In fp32 all images but TIES must be within DEVICE_TOLERANCE; below fp32 all classes but TIES must agree, or
    as many as the gate of the precision asks for.
    """

    bundle: str
    place: str  # where the bundle ran, as in "on board"
    precision: str
    max_abs: Sequence[float | None]  # largest |Δlogit| of each image; None where it is not finite
    scale: float  # largest |logit| expected
    same_class: int  # images

    @classmethod
    def of(
        cls, bundle: str, place: str, precision: str, found: Mapping[str, Any], activation: str = SOFTMAX
    ) -> LogitParity:
        """From what `agent.parity` returns; `activation` of the head decides what another class is."""
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
        allowed = max(TIES, gate.allowed_flips(self.images))
        return self.widest is not None and self.images - self.same_class <= allowed

    @property
    def problem(self) -> str:
        """How much the logits differ."""
        most = "not finite" if self.widest is None else f"{self.widest:.3g}"
        return (
            f"{self.bundle} returns other logits {self.place} than expected, and was not measured: of {self.images} "
            f"images {self.apart} differ by more than {self.tolerance:.3g} (largest difference: {most}) and "
            f"{self.images - self.same_class} have another class; compare the runtimes' versions, or export it "
            "again for that device"
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "max_abs": self.widest,
            "tolerance": self.tolerance,
            "apart": self.apart,
            "class_flips": self.images - self.same_class,
        }


def parity_rounds(subject: Subject) -> int:
    """Number of rounds that hold PARITY_IMAGES pictures, or all rounds."""
    return min(len(subject.rounds), max(1, PARITY_IMAGES // subject.batch))


def expected_logits(subject: Subject, session: Session | None = None) -> NDArray[np.float32]:
    """(images, classes) of the first rounds, by the bundle's own runner in this process or by `session`."""
    pixels = np.load(subject.pixels, mmap_mode="r", allow_pickle=False)[: parity_rounds(subject)]
    with session or open_session(subject.bundle) as opened:
        return np.concatenate([opened.logits(np.ascontiguousarray(batch)) for batch in pixels])
