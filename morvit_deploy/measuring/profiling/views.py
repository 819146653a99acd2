"""Tables and the picture of profiles. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from morvit_deploy.measuring.profiling.bounds import StepProfile, bound_of, percent
from morvit_deploy.measuring.profiling.kinds import KINDS
from morvit_deploy.measuring.profiling.picture import stacked
from morvit_deploy.measuring.profiling.result import Profile
from morvit_deploy.report import Picture, Table, count, three_digits

_TITLES = {"products": "products", "attention": "attention", "movement": "moves", "rest": "rest"}


def profile_tables(name: str, profile: Profile) -> list[Table]:
    """Where the time goes, and what bounds each step."""
    return [time_table(name, profile), bound_table(name, profile)]


def profile_result(name: str, profile: Profile) -> str:
    """The shares of the whole run in a sentence."""
    shares = ", ".join(
        f"{percent(ms / profile.latency_ms)} {_TITLES[kind]}" for kind, ms in profile.whole.ms.items()
    )
    left = percent(_left(profile))
    return f"The time of {name} by the profiler: {shares}, {left} outside of nodes or of no known step."


def time_table(name: str, profile: Profile) -> Table:
    """Milliseconds of each step, and the share of each kind in them."""
    rows = [_time_row(step, profile.latency_ms) for step in (*profile.steps, profile.whole)]
    rows.append(_left_row(f"{profile.unknown_nodes} nodes of no step", profile.unknown_ms, profile))
    rows.append(_left_row("outside of nodes", profile.between_ms, profile))
    kinds = "; ".join(f"{_TITLES[kind]}: {words}" for kind, words in KINDS.items())
    columns = ("step", "ms", "of all", *_TITLES.values(), "nodes")
    caption = f"shares of the step's time in {kinds}. {_checked(profile)}"
    return Table(f"Time of {name}{_bucket(profile)}", columns, rows, tuple(range(1, len(columns))), caption)


def bound_table(name: str, profile: Profile) -> Table:
    """Work of each step, what it achieves, and what bounds it."""
    rows = [
        (
            step.name,
            f"{count(step.macs)}",
            f"{step.weight_bytes / 1e6:.1f}",
            three_digits(step.gmacs_per_s),
            three_digits(step.gb_per_s),
            bound_of(step, profile.machine).short,
        )
        for step in profile.steps
    ]
    machine = profile.machine
    columns = ("step", "MACs", "weights MB", "GMAC/s", "GB/s", "bound by")
    caption = (
        "percent of what this machine can in ONNX Runtime, measured in the same run: "
        f"{three_digits(machine.gmacs_per_s)} GMAC/s (a large product in {machine.products_in}) and "
        f"{three_digits(machine.gb_per_s)} GB/s ({machine.read_by} over {machine.read_mib:.0f} MiB, more than the "
        "caches hold); of small operators, percent of the step's time; no single limit: neither rate is half "
        "reached. GB/s: weights that the step's products read"
    )
    return Table(f"What bounds {name}", columns, rows, numeric=(1, 2, 3, 4), caption=caption)


def profile_picture(profiles: Sequence[tuple[str, Profile]]) -> Picture:
    """A bar for each step, by kind, with what bounds it."""
    groups = [
        (
            f"{name}: {three_digits(profile.latency_ms)} ms",
            [
                (step.name, step.ms, bound_of(step, profile.machine).words.partition(":")[0])
                for step in profile.steps
            ],
        )
        for name, profile in profiles
    ]
    return stacked("Where the time goes", groups, _TITLES)


def _time_row(step: StepProfile, latency_ms: float) -> tuple[str, ...]:
    shares = (percent(step.share(kind)) for kind in KINDS)
    return (
        step.name,
        three_digits(step.total_ms),
        percent(step.total_ms / latency_ms),
        *shares,
        str(step.nodes),
    )


def _left_row(what: str, ms: float, profile: Profile) -> tuple[str, ...]:
    return (what, three_digits(ms), percent(ms / profile.latency_ms), *("" for _ in KINDS), "")


def _left(profile: Profile) -> float:
    return (profile.between_ms + profile.unknown_ms) / profile.latency_ms


def _checked(profile: Profile) -> str:
    """How the profiler's sum compares with the latency, and what was done about it."""
    taken = f"{profile.overhead_us:.1f} µs are taken off each node and the rest times {profile.scale:.2f}"
    taken = taken if profile.nodes_ms > profile.latency_ms else "nothing is taken off"
    slower = f"{100 * profile.slowdown:+.0f} %"
    return (
        f"Without the profiler a run takes {three_digits(profile.latency_ms)} ms, with it "
        f"{three_digits(profile.profiled_ms)} ms ({slower}), of which nodes {three_digits(profile.nodes_ms)} ms: "
        f"{taken}; {profile.runs} runs, the middle half of them counts"
    )


def _bucket(profile: Profile) -> str:
    return f", bucket {profile.bucket}" if profile.bucket else ""
