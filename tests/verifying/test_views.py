"""Tables of results: what a reader must find in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bucket_plans import EXPERT, threshold_ladder

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.exporters.coreml.mil.neural_engine import OPERATIONS
from morvit_deploy.exporters.views import bundle_table
from morvit_deploy.verifying.views import neural_engine_tables, structure_tables

LEAVES = {"what": "topk", "count": 3, "said": "on the CPU", "source": "https://a.example"}
ADDS = {"what": "add of int32", "count": 5, "said": "no path", "source": "https://b.example"}
CASTS = {"what": "cast of int32", "count": 1, "said": "no path", "source": "https://b.example"}


def test_operations_that_leave_are_counted_for_each_function_and_their_sources_named() -> None:
    functions = {
        "stem": {"operations": 9, "leave_neural_engine": [CASTS]},
        "full": {"operations": 40, "leave_neural_engine": [LEAVES, ADDS]},
    }
    counted, known = neural_engine_tables(functions)
    assert counted.columns == ("operation", "stem", "full")
    assert counted.rows == [
        ("add of int32", "", "5"),
        ("topk", "", "3"),
        ("cast of int32", "1", ""),
        ("total of these", "1", "8"),
        ("all operations", "9", "40"),
    ]
    assert known.rows == [("add of int32, cast of int32", "no path [1]"), ("topk", "on the CPU [2]")]
    assert known.caption.endswith("[1] https://b.example\n[2] https://a.example")


def test_a_function_of_which_nothing_leaves_is_said_to_stay() -> None:
    (counted,) = neural_engine_tables({"main": {"operations": 7, "leave_neural_engine": []}})
    assert counted.rows == [("total of these", "0"), ("all operations", "7")]


def test_other_targets_say_nothing_of_the_neural_engine(tiny_bundle: Path) -> None:
    (only,) = structure_tables(open_manifest(tiny_bundle).structure)
    assert only.title == "Structure of the written graph"


def test_a_core_ml_bundle_names_functions_and_sources(exported: Callable[..., Path]) -> None:
    bundle = exported(EXPERT, plan=threshold_ladder(), target="coreml")
    manifest = open_manifest(bundle)
    _, counted, known = structure_tables(manifest.structure)
    assert counted.columns[1:] == ("stem", "b0", "b1", "full")
    assert OPERATIONS["topk"].source in known.caption
    files = dict(bundle_table(bundle, manifest).rows)["files"]
    assert files.startswith("MoRViT.mlpackage") and " in 3 files, MoRViTKit" in files
    assert "Sources" not in files
