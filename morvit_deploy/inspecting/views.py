"""The report of an inspection. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from morvit_deploy.calibration.adaptivity.views import adaptivity_table
from morvit_deploy.inspecting.survey import OVERVIEW, Survey, class_name, survey_png
from morvit_deploy.model.config import Config, RouterConfig
from morvit_deploy.report import Picture, Report, Table, count, share

if TYPE_CHECKING:
    from morvit_deploy.inspecting.degeneracy import Assessment
    from morvit_deploy.inspecting.inspection import Inspection

ROWS = 8  # images listed one by one
_BAR = 30  # characters of the longest histogram bar
_ACTIVATION = {"gelu": "GELU", "gelu_tanh": "GELU (tanh)", "relu": "ReLU"}
_GATE = {"block": "h + g·f(h)", "delta": "h + g·(f(h) − h)", "hard": "f(h)"}
_SCOPE = {
    "active": "active tokens only",
    "all": "queries: active tokens; keys: all tokens",
}


def inspection_report(found: Inspection) -> Report:
    """Return the report of an inspection: configuration, costs, routing."""
    parts: list[Table | Picture] = []
    if (picture := _picture(found)) is not None:
        parts.append(picture)
    if found.survey is not None:
        parts += survey_tables(found.survey, found.config)
    parts += [config_table(found.config), parameter_table(found), tie_table(found), mac_table(found)]
    if found.stages:
        parts.append(stage_table(found))
    if found.by_depth:
        parts.append(level_table(found))
    return Report(f"Inspection of {found.checkpoint}", parts, _result(found))


def _result(found: Inspection) -> str:
    """What the model costs and, with images, how its routers do."""
    size, macs = count(sum(found.parameters.values())), found.macs
    fewer = f"{macs.plain / macs.static:.2f}× fewer than a plain ViT"
    cost = f"{size} parameters, {count(macs.static)}MACs per image: {fewer}"
    if found.survey is None or found.survey.assessment is None:
        return f"{cost}."
    images, baseline = found.survey.assessment.images, found.survey.baseline
    chance = "" if baseline is None else f" At the same MACs, {baseline}; 95 % interval in brackets."
    adaptivity = found.survey.adaptivity
    prospect = f" {adaptivity.sentence}" if adaptivity is not None and adaptivity.sentence else ""
    summary = found.survey.assessment.summary
    return f"Routing on {images:,} different images: {summary}.{chance}{prospect} {cost}."


def _picture(found: Inspection) -> Picture | None:
    """The overview of depth maps: the file, or drawn where it is in none."""
    if found.folder is not None:
        maps = len(found.survey.pictures) - 1 if found.survey else 0
        caption = f"the same folder has {maps} heat maps of single images"
        return Picture("Depth maps", found.folder / OVERVIEW, caption)
    if found.survey is None or found.maps is None:
        return None
    return Picture("Depth maps", Path(OVERVIEW), content=survey_png(found.survey, found.config, found.maps))


def survey_tables(survey: Survey, config: Config) -> list[Table]:
    """Results on images, the checks of routing, depths, and the first images."""
    tables = [survey_table(survey, config), image_table(survey, config)]
    if survey.assessment is not None:
        tables[1:1] = [check_table(survey.assessment), depth_table(survey, config)]
    if survey.adaptivity is not None:
        tables[2:2] = [adaptivity_table(survey.adaptivity)]
    return tables


def check_table(assessment: Assessment) -> Table:
    """Return each check of routing with its outcome."""
    rows = [(check.kind, check.outcome, check.property, check.found) for check in assessment.checks]
    caption = (
        f"on {assessment.images:,} different images. random: as many tokens run in each step, chosen by chance; the "
        "95 % interval is in brackets"
    )
    return Table("Routing checks", ("check", "outcome", "expected", "found"), rows, caption=caption)


def config_table(config: Config) -> Table:
    """Return the configuration as a table."""
    patch, tokens = config.patch_size, config.num_patches
    head_dim = config.embed_dim // config.num_heads
    hidden = "".join(f"{width} – " for width in config.head_hidden)
    rows = [
        ("input", f"{config.pictures} {_colors(config)}, patches of {patch}×{patch}{_overlap(config)}: {tokens} "
                  f"patch tokens{' and CLS' if config.cls_token else ''}{_registers(config)}"),
        ("width", f"{config.embed_dim}, {config.num_heads} heads of {head_dim}, MLP {config.mlp_dim} with "
                  f"{_ACTIVATION[config.activation]}"),
        ("layers", _layers(config)),
        *_routing_rows(config),
        ("head", f"{config.embed_dim} – {hidden}{config.num_classes} classes{_some_labels(config)}"),
        ("preprocess", _preprocess(config)),
    ]  # fmt: skip  # one row per line
    return Table("Configuration", ("what", "value"), rows)


def _colors(config: Config) -> str:
    return {1: "gray", 3: "RGB", 4: "RGBA"}.get(config.in_channels, f"{config.in_channels} channels")


def _overlap(config: Config) -> str:
    return f", one every {config.patch_stride} pixels" if config.patch_stride is not None else ""


def parameter_table(found: Inspection) -> Table:
    """Return the parameters of each part."""
    total = sum(found.parameters.values())
    rows = [(part, f"{size:,}", share(size / total)) for part, size in found.parameters.items()]
    return Table(
        "Parameters", ("part", "parameters", "share"), [*rows, ("total", f"{total:,}", "")], numeric=(1, 2)
    )


def tie_table(found: Inspection) -> Table:
    """Return how often each block is applied, and the parameters that tying saves."""
    rows = [
        (tie.block, f"×{tie.applications}", count(tie.parameters), count(tie.applications * tie.parameters))
        for tie in found.ties
    ]
    total, untied = sum(found.parameters.values()), found.untied_parameters
    caption = "no layers are tied: every layer has its own block"
    if any(tie.applications > 1 for tie in found.ties):
        caption = (
            f"{count(total)} parameters; a plain ViT of {found.config.num_layers} layers has {count(untied)}, "
            f"{untied / total:.2f}× as many"
        )
    for a, b in found.twins:
        caption += f"\n{a} and {b} are stored separately but have equal weights: they could be tied"
    return Table(
        "Ties", ("block", "applied", "parameters", "if untied"), rows, numeric=(1, 2, 3), caption=caption
    )


def mac_table(found: Inspection) -> Table:
    """Return the MACs of one image in each implementation."""
    macs, config = found.macs, found.config
    rows = [("plain ViT with the same number of layers", macs.plain)]
    if config.record.routes:
        rows.append(("tokens that leave are masked, as in eager code", macs.masked))
    if config.schedule is not None:
        rows.append(("only active tokens in each step", macs.gathered))
    rows.append(("static graph, after the exact rewrites", macs.static))
    caption = ""
    if config.ragged:
        caption = "without a plan every token runs every layer, which saves nothing"
    if config.ragged and found.survey is not None:
        mean = float(np.mean([seen.macs for seen in found.survey.images]))
        rows.append((f"static graph fitted to each image, mean of {len(found.survey.images)}", round(mean)))
    body = [(name, count(value), f"{macs.plain / value:.2f}×") for name, value in rows]
    return Table("MACs of one image", ("graph", "MACs", "fewer"), body, numeric=(1, 2), caption=caption)


def stage_table(found: Inspection) -> Table:
    """Return the tokens and MACs of each stage of the static graph."""
    rows = [
        (stage.name, str(stage.tokens), count(stage.macs), share(stage.macs / found.macs.static))
        for stage in found.stages
    ]
    return Table(
        "Static graph by stage", ("stage", "tokens, including CLS", "MACs", "share"), rows, numeric=(1, 2, 3)
    )


def level_table(found: Inspection) -> Table:
    """Return the cost of each depth."""
    rows = [
        (str(level.depth), count(level.macs), share(level.macs / found.macs.masked))
        for level in found.by_depth
    ]
    caption = (
        "MACs of the static graph if every patch token has this depth. `morvit-deploy calibrate` fits a plan to a "
        "mixture of depths"
    )
    return Table(
        "MACs by mean depth", ("depth", "MACs", "of masked"), rows, numeric=(0, 1, 2), caption=caption
    )


def survey_table(survey: Survey, config: Config) -> Table:
    """Return the reference's results on the images."""
    depths = [seen.mean_depth for seen in survey.images]
    rows = [("images", f"{len(depths):,}")]
    if survey.top1 is not None:
        rows.append(("top-1", share(survey.top1)))
    if survey.assessment is None:
        rows.append(("depth", "no routing: every token runs every step, so there are no depth maps"))
        return Table("Results on images (reference, float32)", ("what", "value"), rows)
    found = survey.assessment
    rows.append(("mean depth", f"{survey.mean_depth:.2f} of {config.num_steps} steps"))
    if config.schedule is None:  # a schedule determines the mean
        rows.append(("per image", f"{min(depths):.2f} to {max(depths):.2f}"))
    rows.append(("most common depth", f"{found.common_depth}: {share(found.common_share)} of patch tokens"))
    if found.image_share is not None:
        rows.append(("variance between images", f"{share(found.image_share)} of the variance of depth"))
    spread = ", ".join("–" if value is None else f"{value:.2g}" for value in found.spread or ())
    rows.append(
        ("spread of router logits", f"{spread} (standard deviation per step; – if every token continues)")
    )
    rows.append(("routing", found.summary))
    return Table("Results on images (reference, float32)", ("what", "value"), rows)


def depth_table(survey: Survey, config: Config) -> Table:
    """Return the share of patch tokens at each depth."""
    peak = max(survey.histogram)
    lowest = 1 if config.record.depth_upfront or survey.histogram[0] == 0 else 0
    rows = [
        (str(depth), share(part), "█" * round(_BAR * part / peak))
        for depth, part in list(enumerate(survey.histogram))[lowest:]
    ]
    return Table("Token depth", ("depth", "share of tokens", ""), rows, numeric=(0, 1))


def image_table(survey: Survey, config: Config) -> Table:
    """Return the results of the first images."""
    rows = [
        (
            seen.image,
            class_name(seen.predicted, config),
            "" if seen.label is None else class_name(seen.label, config),
            f"{seen.mean_depth:.2f}",
        )
        for seen in survey.images[:ROWS]
    ]
    left = len(survey.images) - len(rows)
    caption = f"and {left:,} more; --json lists them all" if left else ""
    return Table("Images", ("image", "predicted", "label", "mean depth"), rows, numeric=(3,), caption=caption)


def _layers(config: Config) -> str:
    cycle = "1 block" if config.cycle_depth == 1 else f"{config.cycle_depth} blocks"
    recursion = f"{cycle} × {config.num_recursions}" if config.sharing != "none" else cycle
    ends = ("first + ", " + last") if config.sharing == "middle_cycle" else ("", "")
    return f"{ends[0]}{recursion}{ends[1]} = {config.num_layers} layers"


def _routing_rows(config: Config) -> list[tuple[str, str]]:
    rows = [("routing", config.record.describe(config))]
    if config.router is None:
        return rows
    if config.thresholds is not None:
        taus = ", ".join("–" if threshold is None else f"{threshold:.4g}" for threshold in config.thresholds)
        rows.append(("thresholds", f"{taus} (router logits per step; – if every token continues)"))
    return [
        *rows,
        ("router", _router(config.router, config)),
        ("update", f"{_GATE[config.gate]} ({config.gate})"),
        ("attention", _SCOPE[config.attention_scope]),
    ]


def _router(router: RouterConfig, config: Config) -> str:
    hidden = " – ".join(str(width) for width in router.hidden)
    kind = f"MLP {config.embed_dim} – {hidden}" if hidden else "linear"
    if config.record.depth_upfront:
        return kind
    factor = "" if router.alpha == 1 else f"{router.alpha:g}·"
    owner = "shared by all steps" if router.shared else "one per step"
    return f"{kind}, {owner}; score g = {factor}{router.activation}(z)"


def _registers(config: Config) -> str:
    return f", {config.register_tokens} registers" if config.register_tokens else ""


def _some_labels(config: Config) -> str:
    if not config.labels:
        return ""
    return f" ({', '.join(config.labels[:3])}{', …' if len(config.labels) > 3 else ''})"


def _preprocess(config: Config) -> str:
    p = config.preprocess
    resize = f"shorter side to {p.resize} ({p.interpolation}), " if p.resize else ""
    if isinstance(p.resize, tuple):
        resize = f"resized to {p.resize[0]}×{p.resize[1]} whatever the shape ({p.interpolation}), "
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (p.mean, p.std))
    return f"{resize}center {config.pictures}, mean {mean}, std {std}"
