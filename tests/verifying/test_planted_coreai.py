"""A mutation test of the verifier: every fault planted in a written Core AI bundle is found.

Faults are in the program, in its constants, in the manifest, and in what an app reads. Hashes are made to fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bucket_plans import EXPERT, stepped_ladder
from planted import FALSE_COPIES, FALSE_LABELS, edited, found, name_of

from morvit_deploy.exporters.coreai import proof
from morvit_deploy.exporters.coreai.names import ASSET
from morvit_deploy.machine.extras import is_missing

pytestmark = pytest.mark.skipif(
    is_missing("coreai_torch") or is_missing("coreai"),
    reason='needs Core AI: pip install "morvit-deploy[coreai]" on macOS or on Linux on x86-64',
)

if not is_missing("coreai"):
    from aimodel_edits import AssetEdit
else:
    AssetEdit = Any  # type: ignore[misc]

Change = Callable[["AssetEdit"], Any]


@pytest.fixture(scope="module")
def ladder(exported: Callable[..., Path]) -> Path:
    """Thresholds and three buckets."""
    return exported(EXPERT, plan=stepped_ladder(), target="coreai", with_depth=True)


@pytest.fixture(scope="module", autouse=True)
def converted_once() -> Any:
    """All faults are of one bundle: its static graphs are converted again once."""
    kept: list[Any] = []
    convert = proof.converted_again

    def once(*given: Any) -> Any:
        if not kept:
            kept.append(convert(*given))
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "converted_again", once)
        yield


def name_constant(edit: AssetEdit, function: str, value: str) -> str:
    """The name of the scalar constant that is written so."""
    match = re.search(
        rf"(%\d+) = coreai\.constant dense<{re.escape(value)}> : tensor<f32>", edit.function(function)
    )
    assert match, value
    return match[1]


def comparison(edit: AssetEdit, step: int, function: str = "b0") -> str:
    """The first comparison of router logits with a step's threshold."""
    name = name_constant(edit, function, ["3.000000e-01", "0.000000e+00", "-2.000000e-01"][step])
    match = re.search(rf"coreai\.decomposable\.broadcasting_greater {name}, %\d+", edit.function(function))
    assert match, name
    return match[0]


def threshold_nudged(edit: AssetEdit) -> None:
    """To the next number."""
    other = repr(float(np.nextafter(np.float32(-0.2), np.float32(1))))
    edit.replace("b0", ("dense<-2.000000e-01> : tensor<f32>", f"dense<{other}> : tensor<f32>"))


def thresholds_swapped(edit: AssetEdit) -> None:
    """Of the second and the third step in one bucket."""
    second, third = (comparison(edit, step) for step in (1, 2))
    names = [text.split()[1] for text in (second, third)]
    edit.replace("b0", (second, second.replace(*names)), (third, third.replace(*reversed(names))))


def greater(step: int) -> Change:
    """Takes only router logits above the threshold: z >= t is written as not (t > z)."""

    def plant(edit: AssetEdit) -> None:
        text = comparison(edit, step)
        kind, first, second = text.replace(",", "").split()
        swapped = f"{kind} {second}, {first}"
        match = re.search(
            rf"{re.escape(text)} : \((\S+), (\S+)\) (.*\n.*)coreai\.not (%\d+) (.*)", edit.function("b0")
        )
        assert match
        other = f"{swapped} : ({match[2]}, {match[1]}) {match[3]}"
        types = match[5].removeprefix(": ").replace(" -> ", " to ")
        edit.replace("b0", (match[0], f"{other}coreai.cast {match[4]} : {types}"))

    plant.__name__ = f"> at step {step + 1}"
    return plant


def instead(function: str, old: str, new: str) -> Change:
    """An operation of another kind, of the same syntax."""

    def plant(edit: AssetEdit) -> None:
        edit.replace(function, (old, new))

    plant.__name__ = f"{function} {new} for {old}"
    return plant


def epsilon(edit: AssetEdit) -> None:
    edit.text = edit.text.replace("dense<9.99999997E-7> : tensor<f32>", "dense<1.000000e-03> : tensor<f32>")


def declared_epsilon(edit: AssetEdit) -> None:
    """What a device may run instead of the part's operations."""
    edit.text = edit.text.replace("eps = 9.99999997E-7 : f32", "eps = 1.000000e-03 : f32")


def softmax_axis(edit: AssetEdit) -> None:
    """Over the queries."""
    match = re.search(r"(coreai\.softmax %\d+, )%\d+", edit.function("b0"))
    assert match
    other = re.search(r"(%\d+) = coreai\.constant dense<1> : tensor<si32>", edit.function("b0"))
    assert other
    edit.replace("b0", (match[0], f"{match[1]}{other[1]}"))


def ascending(edit: AssetEdit) -> None:
    """Takes the tokens with the smallest scores."""
    match = re.search(r"coreai\.argsort (%\d+, %\d+, )(%\d+)(, %\d+)", edit.function("b0"))
    other = re.search(r"(%\d+) = coreai\.constant dense<false> : tensor<i1>", edit.function("b0"))
    assert match and other
    edit.replace("b0", (match[0], f"coreai.argsort {match[1]}{other[1]}{match[3]}"))


def weight_changed(edit: AssetEdit) -> None:
    """One number of the head's bias."""
    match = re.search(r"dense<\[(-?0\.\d+), [^\]]*\]> : tensor<10xf32>", edit.function("b0"))
    assert match
    edit.replace("b0", (match[0], match[0].replace(match[1], "0.5", 1)))


def biases_swapped(edit: AssetEdit) -> None:
    """Of two layers of the same size."""
    names = re.findall(r"(%\d+) = coreai\.constant dense<\[.*\]> : tensor<16xf32>", edit.function("b0"))
    first, second = (f", {name} : (tensor<5x16xf32>, tensor<16xf32>)" for name in names[:2])
    edit.replace("b0", (first, "§"), (second, first), ("§", second))


def functions_swapped(edit: AssetEdit) -> None:
    """Two buckets have each other's names."""
    edit.text = edit.text.replace("@b0(", "@other(").replace("@b1(", "@b0(").replace("@other(", "@b1(")


def table_shifted(edit: AssetEdit) -> None:
    edit.replace("stem", ("dense<[4, 8]> : tensor<2xsi32>", "dense<[5, 8]> : tensor<2xsi32>"))


PROGRAM: list[Change] = [
    threshold_nudged,
    thresholds_swapped,
    greater(0),
    greater(1),
    greater(2),
    instead("b0", "coreai.sigmoid", "coreai.relu"),
    instead("full", "coreai.gelu", "coreai.tanh"),
    epsilon,
    declared_epsilon,
    softmax_axis,
    ascending,
    weight_changed,
    biases_swapped,
    functions_swapped,
    table_shifted,
]
QUICK = (thresholds_swapped, functions_swapped, table_shifted)  # the first is shown by converting again


def other_inside(inside: Any) -> Any:
    """Another value of the program for a probe."""
    first, second = list(inside["b0"])[:2]
    inside["b0"][first] = inside["b0"][second]
    return inside


MANIFEST = [
    ("target_form.functions", lambda names: [*names[:1], *reversed(names[1:])]),
    ("target_form.select", lambda select: "onehot"),
    ("target_form.inside", other_inside),
    ("plan.thresholds", lambda values: [values[1], values[0], *values[2:]]),
    ("config.norm_eps", lambda value: 1e-3),
]


@pytest.mark.slow
def test_a_sound_bundle_passes(ladder: Path, tmp_path: Path) -> None:
    copy = edited(ladder, tmp_path, ASSET, AssetEdit, lambda edit: None)
    assert found(copy, ladder.parent / "checkpoint") == ""


@pytest.mark.parametrize(
    "fault",
    [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in PROGRAM],
    ids=name_of,
)
def test_a_fault_in_the_program_is_found(ladder: Path, tmp_path: Path, fault: Change) -> None:
    assert found(edited(ladder, tmp_path, ASSET, AssetEdit, fault), ladder.parent / "checkpoint") != ""


@pytest.mark.parametrize("fault", [*FALSE_COPIES, *FALSE_LABELS], ids=name_of)
def test_a_false_copy_is_found(ladder: Path, tmp_path: Path, fault: Change) -> None:
    assert found(edited(ladder, tmp_path, ASSET, AssetEdit, fault), ladder.parent / "checkpoint") != ""


@pytest.mark.slow
@pytest.mark.parametrize(("field", "change"), MANIFEST, ids=[field for field, _ in MANIFEST])
def test_an_edited_manifest_is_found(
    ladder: Path, tmp_path: Path, field: str, change: Callable[[Any], Any]
) -> None:
    copy = edited(ladder, tmp_path, ASSET, AssetEdit, lambda edit: None)
    known = json.loads((copy / "manifest.json").read_bytes())
    *path, last = field.split(".")
    place = known
    for name in path:
        place = place[name]
    place[last] = change(place[last])
    (copy / "manifest.json").write_text(json.dumps(known))
    assert found(copy, ladder.parent / "checkpoint") != ""
