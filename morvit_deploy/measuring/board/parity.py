"""Does a device compute what the bundle computes here? Judged before anything is measured on it. No torch."""

from __future__ import annotations

from typing import Any

from morvit_deploy.errors import ParityError
from morvit_deploy.model.precision import gate_for

DEVICE_TOLERANCE = 1e-4  # × max(1, max |logit|): as for the conversion gap, float32 round-off over 12 layers
TIES = 1  # images that may differ in fp32: a routing decision within round-off falls otherwise on another processor


def judged(name: str, host: str, precision: str, found: dict[str, Any]) -> dict[str, Any]:
    """What the device answered, with the verdict's terms; ParityError where it is another model there.

    In fp32 all images but TIES are within DEVICE_TOLERANCE; below, classes are held to the precision's gate.
    """
    limit = DEVICE_TOLERANCE * max(1.0, found["scale"])
    apart = sum(gap is None or gap > limit for gap in found["max_abs"])
    flips = found["images"] - found["same_class"]
    gate = gate_for(precision, None)
    if gate is None:
        passed = apart <= TIES and apart < found["images"]
    else:
        passed = flips <= gate.allowed_flips(found["images"]) and None not in found["max_abs"]
    widest = None if None in found["max_abs"] else max(found["max_abs"])
    if not passed:
        most = "not finite" if widest is None else f"{widest:.3g}"
        raise ParityError(
            f"{name} answers otherwise on {host} than here, and was not measured: of {found['images']} images "
            f"{apart} have logits more than {limit:.3g} away (most: {most}), "
            f"{flips} another class; compare the runtimes' versions, or export it again for that device"
        )
    return {
        "images": found["images"],
        "max_abs": widest,
        "tolerance": limit,
        "apart": apart,
        "class_flips": flips,
    }
