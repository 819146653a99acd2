"""What capacities and thresholds a configuration allows, and which routers a graph with thresholds evaluates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from morvit_deploy.model.choices import Output
    from morvit_deploy.model.config import Config


def schedule_problems(capacity: tuple[int, ...] | None, config: Config) -> list[str]:
    """Return the reasons why `capacity` is not a valid schedule for `config`; empty if it is valid."""
    steps, most = config.num_steps, config.routed_tokens
    if capacity is None:
        return [f"capacity: got null, expected {steps} numbers (one for each step)"]
    problems = []
    if len(capacity) != steps:
        problems.append(f"capacity: got {len(capacity)} numbers, expected {steps} (one for each step)")
    if max(capacity, default=0) > most:
        counted = "the patch tokens and CLS" if config.record.routes_cls else "the patch tokens"
        problems.append(f"capacity: got {max(capacity)}, expected at most {most} ({counted})")
    rises = (
        [r for r in range(1, len(capacity)) if capacity[r] > capacity[r - 1]] if config.record.nested else []
    )
    problems += [
        f"capacity[{r}]: got {capacity[r]} after {capacity[r - 1]}; a token that has left does "
        "not return, so capacities must not increase"
        for r in rises
    ]
    return problems or config.record.schedule_limits(capacity, config)


def reduction_problems(config: Config) -> list[str]:
    """Return the reasons why the field `reduction` does not fit the routing and the layers; empty if it does."""
    record, reduction = config.record, config.reduction
    if not record.reduces:
        return [] if reduction is None else [f"reduction: expected null with routing {config.routing!r}"]
    if reduction is None:
        return [
            f"reduction: got null, expected the layers at which tokens leave, as {config.routing!r} requires"
        ]
    layers, last = list(reduction.layers), config.num_layers - 1 - (not record.last_layer_reduces)
    problems = [
        f"reduction.{flag}: expected false with routing {config.routing!r}"
        for flag in ("fuse", "proportional")
        if getattr(reduction, flag) and flag not in record.reduction_flags
    ]
    if layers != sorted(set(layers)) or max(layers) > last:
        problems.append(
            f"reduction.layers: got {layers}, expected ascending numbers from 0 to {last}, each once"
            + (
                ""
                if record.last_layer_reduces
                else "; what leaves in the last layer does not change the logits"
            )
        )
    return problems


def threshold_problems(thresholds: tuple[float | None, ...], config: Config) -> list[str]:
    """Return the reasons why `config` cannot be routed by these thresholds; empty if it can."""
    steps = config.num_steps
    if len(thresholds) != steps:
        return [f"thresholds: got {len(thresholds)}, expected {steps} (one for each step)"]
    if thresholds[-1] is not None and not last_step_decides(config):
        return [
            f"thresholds[{steps - 1}]: got {thresholds[-1]}, expected null: only CLS is used after the last step, so "
            "its router has no effect"
        ]
    return []


def unthresholded_problems(
    capacity: tuple[int, ...], thresholds: tuple[float | None, ...], config: Config
) -> list[str]:
    """Return where the number of tokens changes at a step without a threshold."""
    before = (config.num_patches, *capacity)
    return [
        f"capacity[{step}]: got {now} after {held}, expected {held}: no token leaves at a step without a threshold"
        for step, (held, now, threshold) in enumerate(zip(before, capacity, thresholds, strict=False))
        if threshold is None and now != held
    ]


def routed_by(config: Config, thresholds: tuple[float | None, ...]) -> tuple[bool, ...]:
    """Return, for each step of a threshold graph, whether the router is evaluated."""
    return tuple(config.gate != "hard" or threshold is not None for threshold in thresholds)


def reads_cls_alone(config: Config, output: Output = "logits") -> bool:
    """Return whether the output reads no other token than CLS, so that the last layer need not update the others."""
    return config.pooling == "cls" and output != "tokens"


def last_step_is_cls_alone(config: Config) -> bool:
    """Whether the last step updates CLS alone, with all tokens as keys, so that its routing has no effect."""
    alone = config.sharing != "middle_cycle" and config.cycle_depth == 1 and reads_cls_alone(config)
    return alone and config.attention_scope == "all"


def last_step_decides(config: Config) -> bool:
    """Whether the last step's router affects the logits, through the gate's score or through the routing."""
    return config.gate != "hard" or not last_step_is_cls_alone(config)
