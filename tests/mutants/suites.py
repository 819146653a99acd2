"""The modules that are mutated, those without input and output, and the quick tests of each, nearest first."""

from __future__ import annotations

from collections.abc import Sequence

MODEL, CONFIG = "tests/model/test_{}.py", "tests/model/config/test_config.py"
BUCKETS = "tests/calibration/buckets/test_{}.py"
ROUTING = "tests/calibration/routing/test_{}.py"
SELECTION = "tests/graph/style/test_selection_macs.py"
ROUTES = (
    "tests/graph/test_unroll.py", "tests/graph/test_baselines.py", "tests/model/test_routings.py",
    "tests/graph/test_thresholds.py",
    "tests/model/test_macs.py::test_the_unrolled_graph_does_what_is_counted", f"{SELECTION}::test_one_bucket",
)  # fmt: skip  # a list
STYLE = (
    "tests/graph/maths", "tests/graph/style/test_selection.py", "tests/graph/test_unroll.py",
    "tests/graph/style/test_styles.py",
)  # fmt: skip  # a list
VERIFYING = (
    "tests/verifying/test_judging.py", "tests/verifying/test_gaps.py", "tests/verifying/test_figures.py",
    "tests/verifying/test_verify.py::test_a_change_of_routing_is_counted_token_by_token",
    "tests/verifying/test_verify.py::test_a_change_of_routing_where_tokens_come_back",
)  # fmt: skip  # a list
FITTING = tuple(BUCKETS.format(name) for name in ("fitting", "points", "costs", "choice", "plan"))


def _model(*names: str) -> tuple[str, ...]:
    return tuple(MODEL.format(name) for name in names)


SUITES: dict[str, Sequence[str]] = {
    "model.answers.accuracy": (
        "tests/model/answers/test_accuracy.py",
        BUCKETS.format("choice"),
        "tests/planning/test_conclusion.py",
    ),
    "model.config.config": (CONFIG, *_model("own_thresholds", "routings", "reference", "macs")),
    "model.config.parts": (CONFIG, *_model("image_shapes", "own_thresholds")),
    "model.config.problems": (CONFIG, *_model("own_thresholds", "image_shapes", "pooling", "registers")),
    "model.config.reading": (CONFIG, *_model("own_thresholds", "checkpoint")),
    "model.decisions": _model("decisions", "routings", "reference"),
    "model.answers.gates": ("tests/model/answers/test_gates.py", *VERIFYING),
    "model.answers.heads": ("tests/model/answers/test_heads.py", *VERIFYING),
    "model.layers": (*_model("layers", "reference"), "tests/graph/maths"),
    "model.macs": (*_model("macs", "plan", "registers"), SELECTION, BUCKETS.format("costs")),
    "model.plan": (*_model("plan", "own_thresholds", "macs"), BUCKETS.format("plan")),
    "model.reference": (*_model("reference", "registers", "routings"), "tests/model/answers/test_heads.py"),
    "model.merging": _model("merging", "routings", "reference"),
    "model.reducing": _model("reference", "routings", "macs"),
    "model.trace": (*_model("decisions", "routings", "reference"), ROUTING.format("scout")),
    "model.routings.schedules": (CONFIG, *_model("own_thresholds", "plan", "macs")),
    "model.routings.counting": (*_model("macs", "routings", "plan"), SELECTION),
    "model.routings.token_choice": (*_model("macs", "routings"), SELECTION),
    "model.routings.expert_choice": (*_model("macs", "routings"), SELECTION),
    "model.routings.reducing": (*_model("macs", "routings"), SELECTION),
    "model.routings.merged": (*_model("macs", "merging", "routings"), SELECTION),
    "model.routings.none": (CONFIG, *_model("macs", "routings", "plan"), SELECTION),
    "graph.baselines": ("tests/graph/test_baselines.py", "tests/model/test_routings.py"),
    "graph.dense": ROUTES,
    "graph.expert_choice": ROUTES,
    "graph.flat_choice": ROUTES,
    "graph.maths.dispatch": STYLE,
    "graph.maths.layouts": STYLE,
    "graph.maths.rewrites": STYLE,
    "graph.step": ROUTES,
    "graph.reducing": ROUTES,
    "graph.merging": ("tests/graph/test_merging.py", *ROUTES),
    "graph.style.blocks": STYLE,
    "graph.style.channels_first": STYLE,
    "graph.style.ends": STYLE,
    "graph.style.one_hot": STYLE,
    "graph.style.selection": STYLE,
    "graph.style.stems": STYLE,
    "graph.token_choice": ROUTES,
    "graph.unroll": ROUTES,
    "graph.weights": ROUTES,
    "verifying.checks": VERIFYING,
    "verifying.edges": ("tests/verifying/test_edges.py",),
    "verifying.findings": VERIFYING,
    "verifying.gaps": (*VERIFYING, "tests/model/answers/test_heads.py"),
    "verifying.judging": VERIFYING,
    "verifying.outcome": VERIFYING,
    "verifying.probes": ("tests/graph/style/test_styles.py",),
    "verifying.routes": ("tests/verifying/test_routes_by_hand.py", "tests/verifying/test_routes.py"),
    "calibration.buckets.choice": (BUCKETS.format("choice"), "tests/planning/test_conclusion.py"),
    "calibration.buckets.costs": (BUCKETS.format("costs"), BUCKETS.format("points"), BUCKETS.format("plan")),
    "calibration.buckets.exact": FITTING,
    "calibration.buckets.ladders": FITTING,
    "calibration.buckets.plan": (BUCKETS.format("plan"),),
    "calibration.buckets.points": (
        BUCKETS.format("points"),
        BUCKETS.format("plan"),
        BUCKETS.format("choice"),
    ),
    "calibration.buckets.predicted": FITTING,
    "calibration.buckets.search": FITTING,
    "calibration.ranges.smoothing": ("tests/calibration/ranges/test_smoothing.py",),
    "calibration.routing.histograms": (ROUTING.format("histograms"),),
    "calibration.routing.scout": (ROUTING.format("scout"), BUCKETS.format("points")),
}
