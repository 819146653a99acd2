"""Compares the reference model, the float64 reading of a checkpoint, with the source's own outputs."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from morvit_deploy.errors import ParityError
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.threads import fitting_threads
from morvit_deploy.sources.outputs.causes import likely_causes
from morvit_deploy.sources.outputs.gap import FLOAT_TOLERANCE, HALF_TOLERANCE, SourceGap
from morvit_deploy.sources.outputs.reading import SourceOutputs, read_outputs

CHUNK = 4  # images per chunk: all of their states are kept


def compare_with_source(model: MoRViT, path: str | Path) -> SourceGap:
    """Return the gap between the model in float64 and the logits in the `.npz` file at `path`.

    Images whose routing margin is within the tolerance are left out: the source's round-off may route them otherwise.
    Raises ConfigError for a file that cannot be used; a gap that is too large is returned.
    """
    outputs = read_outputs(path, model.config)
    relative = HALF_TOLERANCE if outputs.logits.dtype == np.float16 else FLOAT_TOLERANCE
    own, margins = _logits_of(model, outputs)
    clear = ~(margins <= relative)  # NaN is compared, and fails
    theirs = outputs.logits[clear].astype(np.float64)
    gap = SourceGap(
        sha256=outputs.sha256,
        checkpoint=digest_of(model),
        given=outputs.given,
        dtype=outputs.logits.dtype.name,
        total=outputs.total,
        compared=len(theirs),
        ambiguous=len(clear) - len(theirs),
        max_abs=_largest(theirs, own[clear]),
        tolerance=relative * half_range(theirs),
        top1_agreement=float((theirs.argmax(axis=1) == own[clear].argmax(axis=1)).mean())
        if len(theirs)
        else 1.0,
    )
    if gap.passed or not gap.compared:
        return gap
    causes = likely_causes(theirs, own[clear], gap, model.config)
    return gap.model_copy(update={"likely": causes})


def check_source(model: MoRViT, path: str | Path, refusal: str) -> SourceGap:
    """Return the gap; ParityError, which starts with `refusal`, if it is too large."""
    gap = compare_with_source(model, path)
    if not gap.passed:
        raise ParityError(f"{refusal}: {gap.failure}")
    return gap


def recorded_gap(model: MoRViT) -> SourceGap | None:
    """Return the gap in a checkpoint's provenance, which `convert` wrote; None if the model was changed since."""
    try:
        gap = SourceGap.model_validate_json(json.dumps((model.config.provenance or {}).get("reference")))
    except ValidationError:
        return None
    return gap if gap.checkpoint == digest_of(model) and gap.passed else None


def digest_of(model: MoRViT) -> str:
    """Return the sha256 of a model's weights and of its configuration without provenance."""
    fields = model.config.model_dump(mode="json", exclude={"provenance"})
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def half_range(logits: NDArray[np.float64]) -> float:
    """Half the distance from the lowest to the highest logit; the magnitude of a single one."""
    if not logits.size:
        return 0.0
    spread = float(np.ptp(logits)) / 2
    return spread or float(np.abs(logits).max())


def _logits_of(model: MoRViT, outputs: SourceOutputs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The reference's logits (n, classes), and the routing margin of each image (n,)."""
    reference = copy.deepcopy(model).double()
    inputs = torch.from_numpy(outputs.normalised(model.config))
    with torch.no_grad(), fitting_threads(model.config):
        outcomes = [reference(chunk) for chunk in inputs.split(CHUNK)]
    margins = [trace.margin for outcome in outcomes for trace in outcome.traces]
    return torch.cat([outcome.logits for outcome in outcomes]).numpy(), np.array(margins)


def _largest(theirs: NDArray[np.float64], own: NDArray[np.float64]) -> float:
    """The largest difference; infinite if any is not finite."""
    with np.errstate(invalid="ignore"):
        difference = float(np.abs(theirs - own).max(initial=0.0))
    return difference if np.isfinite(difference) else float("inf")
