"""Fields of a configuration that are right by themselves and contradict each other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from morvit_deploy.model.config.parts import MAX_SIZE
from morvit_deploy.model.routings import ROUTINGS
from morvit_deploy.model.routings.schedules import (
    reduction_problems,
    schedule_problems,
    threshold_problems,
    unthresholded_problems,
)
from morvit_deploy.strict_fields import cut, short

if TYPE_CHECKING:
    from morvit_deploy.model.config.config import Config

MAX_STEPS, MAX_LAYERS = 255, 1000
MAX_PATCHES = 65_536  # 256 × 256: one head's attention matrix is then 17 GB


def shape_problems(config: Config) -> list[str]:
    """Return where image, patches, blocks, classes and preprocessing contradict each other; empty if nowhere."""
    return [
        *_patch_problems(config),
        *_channel_problems(config),
        *_block_problems(config),
        *_label_problems(config),
        *_resize_problems(config),
    ]


def _patch_problems(config: Config) -> list[str]:
    problems, patch, stride = [], config.patch_size, config.patch_stride
    if stride is None and any(edge % patch for edge in config.image_shape):
        problems.append(f"image_size: got {_size(config)}, expected a multiple of patch_size {patch}")
    elif min(config.image_shape) < patch:
        problems.append(f"image_size: got {_size(config)}, expected at least patch_size {patch}")
    elif stride is not None and stride >= patch:
        problems.append(
            f"patch_stride: got {stride}, expected less than patch_size {patch}, for patches that overlap; omit "
            "the field if they are side by side"
        )
    if config.num_patches > MAX_PATCHES:
        problems.append(
            f"image_size: got {_size(config)}, which is {config.num_patches:,} patches of {patch} pixels, expected "
            f"at most {MAX_PATCHES:,} patches"
        )
    return problems


def _channel_problems(config: Config) -> list[str]:
    """The normalization has a value for each channel."""
    return [
        f"preprocess.{name}: got {len(values)} values, expected {config.in_channels} (in_channels)"
        for name, values in (("mean", config.preprocess.mean), ("std", config.preprocess.std))
        if len(values) != config.in_channels
    ]


def _block_problems(config: Config) -> list[str]:
    """The width has whole heads, and layers and steps are as many as their formats hold."""
    problems = []
    if config.embed_dim % config.num_heads:
        problems.append(
            f"num_heads: got {config.num_heads}, expected a divisor of embed_dim {config.embed_dim}"
        )
    if config.sharing == "none" and config.num_recursions != 1:
        problems.append(
            f"num_recursions: got {config.num_recursions}, expected 1 with sharing 'none' (no block is repeated)"
        )
    if config.num_steps > MAX_STEPS:
        problems.append(
            f"num_recursions: got {config.num_steps} steps, expected at most {MAX_STEPS} (depth is a uint8)"
        )
    if config.num_layers > MAX_LAYERS:
        problems.append(
            f"cycle_depth: got {config.num_layers} layers in total, expected at most {MAX_LAYERS}"
        )
    return problems


def _label_problems(config: Config) -> list[str]:
    if config.labels is None or len(config.labels) == config.num_classes:
        return []
    return [f"labels: got {len(config.labels)} names, expected {config.num_classes} (num_classes)"]


def _resize_problems(config: Config) -> list[str]:
    """The crop is inside of the resized image; without resizing, the image itself is checked when it is read."""
    resize = config.preprocess.resize
    sides = resize if isinstance(resize, tuple) else (resize or MAX_SIZE,) * 2
    if not any(side < edge for side, edge in zip(sides, config.image_shape, strict=True)):
        return []
    got = list(resize) if isinstance(resize, tuple) else resize
    return [
        f"preprocess.resize: got {got}, expected at least image_size {_size(config)}, or null to crop without "
        "resizing"
    ]


def _size(config: Config) -> int | list[int]:
    """`image_size` as `config.json` has it."""
    return list(config.image_size) if isinstance(config.image_size, tuple) else config.image_size


def routing_problems(config: Config) -> list[str]:
    """Return what the routing cannot have: tokens, fields, a schedule, thresholds; empty if it can have all."""
    problems, record = reduction_problems(config), config.record
    if not config.cls_token and record.routes:
        problems.append(
            f"cls_token: got false, expected true with routing {config.routing!r}: CLS runs every step, so that "
            "each step has a token"
        )
    if not config.cls_token and config.pooling == "cls":
        problems.append(
            "cls_token: got false, expected pooling 'mean' or 'mean_norm': there is no CLS to read"
        )
    if config.register_tokens and record.routes:
        problems.append(
            f"register_tokens: got {config.register_tokens}, expected 0 with routing {config.routing!r}: only plain "
            "ViTs support registers"
        )
    for field, value in record.fixed.items():
        if (got := getattr(config, field)) != value:
            shown = short(list(got) if isinstance(got, tuple) else got)
            wanted = f"{json.dumps(value)} with routing {config.routing!r}{record.why_fixed}"
            problems.append(f"{field}: got {shown}, expected {wanted}")
    if record.routes and record.reads_router and config.router is None:
        problems.append(f"router: got null, expected a router with routing {config.routing!r}")
    if record.has_schedule and record.reduces == (config.reduction is not None):
        problems += schedule_problems(config.capacity, config)
    if config.thresholds is not None:
        problems += _own_threshold_problems(config, config.thresholds)
    return problems


def _own_threshold_problems(config: Config, thresholds: tuple[float | None, ...]) -> list[str]:
    """Reasons why these are not the thresholds of a trained model."""
    if "threshold" not in config.record.modes:
        fitting = " or ".join(repr(name) for name, one in ROUTINGS.items() if "threshold" in one.modes)
        return [
            f"thresholds: got {cut(json.dumps(thresholds))} with routing {config.routing!r}, expected null: only "
            f"{fitting} routes by thresholds"
        ]
    if problems := threshold_problems(thresholds, config):
        return problems
    if all(threshold is None for threshold in thresholds):
        return [
            "thresholds: got only null, expected a number for at least one step; omit the field if tokens are "
            "selected by top-k"
        ]
    return unthresholded_problems(config.capacity or (), thresholds, config)
