"""The forms that a payoff compares: exports of one checkpoint with other schedules. Exporting imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.calibration.routing.sequence import OWN, scaled
from morvit_deploy.errors import BundleError, CheckFailed, ConfigError, PlanError
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan, own_plan, topk_plan

ADAPTIVE, TOPK, DENSE = "adaptive", "top-k", "dense"
Batch = int | Literal["dynamic"]


@dataclass(frozen=True)
class Form:
    """One way to run the checkpoint."""

    kind: str  # ADAPTIVE, TOPK or DENSE
    plan: Plan
    dispatch: Literal["graph", "host"] | None = None  # of an adaptive form
    scale: float = OWN  # of a top-k form: factor of the trained capacities

    @property
    def name(self) -> str:
        """For tables."""
        detail = self.dispatch or (f"{self.scale:g}×" if self.scale != OWN else None)
        return f"{self.kind} ({detail})" if detail else self.kind


def forms_of(plan: Plan, config: Config, topk_scale: float = OWN) -> list[Form]:
    """Adaptive by this plan, top-k by the checkpoint's capacities if it has any, and every token in every step.

    `topk_scale` multiplies the capacities of top-k; ConfigError for a checkpoint without, or a factor that is not
    positive.
    """
    _check_scale(config, topk_scale)
    adaptive = [Form(ADAPTIVE, plan, "graph"), Form(ADAPTIVE, plan, "host")]
    if config.capacity is None:
        return [*adaptive, Form(DENSE, own_plan(config))]
    everyone = (config.routed_tokens,) * config.num_steps
    fixed = config.capacity if topk_scale == OWN else scaled(config, topk_scale)
    return [
        *adaptive,
        Form(TOPK, topk_plan(config, fixed), scale=topk_scale),
        Form(DENSE, topk_plan(config, everyone)),
    ]


def _check_scale(config: Config, scale: float) -> None:
    if not 0 < scale < float("inf"):
        raise ConfigError(f"topk_scale: got {scale:g}, expected a positive factor of the trained capacities")
    if scale != OWN and config.capacity is None:
        raise ConfigError(
            f"topk_scale: got {scale:g}, but routing {config.routing!r} has no capacities to multiply; leave it out"
        )


def left_out(config: Config) -> list[str]:
    """Forms that are left out, with the reason."""
    if config.capacity is not None:
        return []
    return [f"{TOPK}: routing {config.routing!r} has no schedule of its own"]


def check_forms(bundle: Path, manifest: Manifest, checkpoint: Path) -> None:
    """PlanError for a bundle of one bucket or below fp32, BundleError for another checkpoint than the bundle's."""
    if reason := manifest.config.record.why_one_bucket:
        raise PlanError(
            f"{bundle} has one bucket, so there is no adaptivity to measure, and with routing "
            f"{manifest.config.routing!r} there can be no other: {reason}; compare it with `bench --against`"
        )
    if not manifest.plan.adaptive:
        raise PlanError(
            f"{bundle} has one bucket, so there is no adaptivity to measure; fit a plan of several with "
            "`morvit-deploy calibrate`, export with --plan, and give that bundle"
        )
    if not manifest.exact:
        what = ", ".join(filter(None, (manifest.precision, manifest.target_form.said)))
        raise PlanError(
            f"{bundle} is in {what} and the other forms are exported in fp32, so precisions would be "
            "compared; give the fp32 bundle of the same plan"
        )
    from morvit_deploy.model.checkpoint import fingerprint, load_checkpoint

    load_checkpoint(checkpoint)  # raises its own errors
    if (found := fingerprint(checkpoint)) != manifest.checkpoint.sha256:
        raise BundleError(
            f"{bundle} was made from another checkpoint (sha256 {manifest.checkpoint.sha256[:12]}…) than "
            f"{checkpoint} ({found[:12]}…); give the one that it was exported from"
        )


def export_forms(
    forms: Sequence[Form],
    bundle: Path,
    manifest: Manifest,
    checkpoint: Path,
    batches: Sequence[Batch],
    scratch: Path,
    part: Callable[[str], AbstractContextManager[None]],
) -> dict[tuple[str, Batch], Path]:
    """A verified bundle of each form and batch, by name and batch; `bundle` itself where it is that form.

    `part` is entered around each export, with its description.
    """
    from morvit_deploy.exporters.api import export

    made: dict[tuple[str, Batch], Path] = {}
    for form in forms:
        plan = scratch / f"{form.kind}.json"
        plan.write_text(form.plan.to_json(), encoding="utf-8")
        for batch in batches:
            if is_form(manifest, form, batch):
                made[form.name, batch] = bundle
                continue
            folder = scratch / f"{form.kind}-{form.dispatch}-{batch}"
            with part(f"exporting {form.name}, batch {batch}"):
                try:
                    export(
                        checkpoint, folder, target=manifest.target, plan=plan, dispatch=form.dispatch or "graph",
                        batch=batch, input=manifest.input,
                    )  # fmt: skip  # two lines read better than eight
                except CheckFailed as error:
                    raise type(error)(f"exporting {form.name} for batch {batch}: {error}") from error
            made[form.name, batch] = folder
    return made


def is_form(manifest: Manifest, form: Form, batch: Batch) -> bool:
    """Is the bundle what an export of this form would be, without further outputs?"""
    same = (manifest.plan, manifest.dispatch, manifest.batch) == (form.plan, form.dispatch, batch)
    return same and not any(port.name == "depth" for port in manifest.outputs)
