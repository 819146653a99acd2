"""bundle.js in Node with onnxruntime-web: every form of bundle returns what Python returns; bad ones are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bucket_plans import EXPERT, TOKEN, depth_ladder, threshold_ladder
from node import node_module, require, run_node
from places import ROOT
from tiny_models import make_config, random_pixels

from morvit_deploy import open_bundle
from morvit_deploy.bundle.session import Session
from morvit_deploy.model.answers.heads import probabilities

MODULE = ROOT / "morvit_deploy" / "bundle" / "web" / "bundle.js"
PROGRAM = Path(__file__).parent / "run.mjs"
CLOSE = 1e-4  # × max(1, max |logit|): float32 in another build of the runtime
IMAGES = 9  # more than any fixed batch
PIXELS = random_pixels(EXPERT, IMAGES, seed=7)  # four of them overflow
Exported = Callable[..., Path]
FORMS: dict[str, dict[str, Any]] = {
    "batch of 4, depth": {"config": make_config(attention_scope="active"), "batch": 4, "with_depth": True},
    "dynamic, float": {"config": make_config(), "batch": "dynamic", "input": "float"},
    "graph": {"config": EXPERT, "plan": threshold_ladder()},
    "host, overflowing": {"config": EXPERT, "plan": threshold_ladder(), "dispatch": "host"},
    "features": {
        "config": make_config(head_activation="none", labels=None),
        "output": "features",
        "batch": 2,
    },
    "tokens, host": {"config": EXPERT, "plan": threshold_ladder(), "dispatch": "host", "output": "tokens"},
    "host, dynamic": {"config": TOKEN, "plan": depth_ladder(), "batch": "dynamic", "dispatch": "host"},
}


def open_in_node(bundles: list[Path], folder: Path, fails: str = "") -> list[dict[str, Any]]:
    """What bundle.js returns for PIXELS, for each bundle; with `fails`, in a runtime that fails with this message."""
    (folder / "pixels").write_bytes(PIXELS.tobytes())
    request = {"module": str(MODULE), "ort": "" if fails else str(node_module()), "fails": fails}
    given = [{"folder": str(bundle), "pixels": str(folder / "pixels")} for bundle in bundles]
    results: list[dict[str, Any]] = run_node(PROGRAM, {**request, "bundles": given}, folder)
    return results


def test_every_form_returns_what_python_returns(
    exported: Exported, tiny_bundle: Path, tmp_path: Path
) -> None:
    node_module()  # skips before anything is exported
    bundles = [tiny_bundle, *(exported(**form) for form in FORMS.values())]
    overflowed = 0
    for bundle, found in zip(bundles, open_in_node(bundles, tmp_path), strict=True):
        assert "error" not in found, found["error"]
        with open_bundle(bundle) as session:
            assert_same(session, found)
        overflowed += sum(found["outputs"].get("overflow", {"data": []})["data"])
    assert overflowed > 0  # the ladder has such images


def assert_same(session: Session, found: dict[str, Any]) -> None:
    expected, outputs = session.run(PIXELS), found["outputs"]
    name_of_it = session.manifest.output
    answers = expected[name_of_it]
    assert outputs.keys() == expected.keys()
    close = CLOSE * max(1, np.abs(answers).max())
    assert outputs[name_of_it]["dims"] == list(answers.shape)
    assert np.abs(np.array(outputs[name_of_it]["data"]).reshape(answers.shape) - answers).max() <= close
    for name in outputs.keys() - {name_of_it}:
        assert outputs[name]["dims"] == list(expected[name].shape)
        assert np.array_equal(np.array(outputs[name]["data"]), expected[name].ravel())
    first, config = found["first"], session.manifest.config
    assert first["bucket"] == session.bucket_of(expected, 0)
    if name_of_it == "logits":
        assert [guess["index"] for guess in first["top"]] == [
            guess.index for guess in session.guesses(answers[0], count=config.num_classes)
        ]
        assert np.abs(np.array(first["probabilities"]) - probabilities(answers[0])).max() <= CLOSE
    else:
        assert first["shape"] == list(answers.shape[1:]) and "top" not in first
        assert np.abs(np.array(first["values"]).reshape(first["shape"]) - answers[0]).max() <= close
    assert (first["depth"] is None) == ("depth" not in expected)
    assert found["grid"]["rows"] * found["grid"]["columns"] == config.num_patches
    assert found["grid"]["steps"] == config.num_steps
    assert found["warnings"] == []


def changed(bundle: Path, folder: Path, **fields: Any) -> Path:
    """A copy of a bundle with other fields in its manifest."""
    copy = Path(shutil.copytree(bundle, folder))
    manifest = json.loads((copy / "manifest.json").read_bytes())
    (copy / "manifest.json").write_text(json.dumps(manifest | fields))
    return copy


def test_bad_bundles_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    node_module()
    cases: dict[Path, str] = {}
    for target in ("trt", "coreml"):
        copy = changed(tiny_bundle, tmp_path / target, target=target)
        cases[copy] = f'got a bundle of target "{target}", expected "onnx"'
    cases[changed(tiny_bundle, tmp_path / "other", format="morvit/1")] = (
        'has "morvit/1", expected "morvit-bundle/2"'
    )
    later = changed(tiny_bundle, tmp_path / "later", target_form={"lowest_runtime": "99.1"})
    cases[later] = "the bundle needs ONNX Runtime 99.1 or newer, and this is 1."
    escaping = [{"path": "../weights.bin", "bytes": 1, "sha256": "00"}]
    cases[changed(tiny_bundle, tmp_path / "escaping", files=escaping)] = 'the path "../weights.bin"'
    cases[changed(tiny_bundle, tmp_path / "planless", plan=None)] = "edited by hand: it has no plan"
    config = json.loads((tiny_bundle / "manifest.json").read_bytes())["config"]
    beyond: dict[str, dict[str, object]] = {
        "images of 32×64": {"image_size": [32, 64]},
        "images of 1 channels": {"in_channels": 1},
        "overlapping patches": {"patch_stride": 6},
        "head_activation none": {"head_activation": "none"},
    }
    for number, (words, fields) in enumerate(beyond.items()):
        copy = changed(tiny_bundle, tmp_path / f"beyond{number}", config=config | fields)
        cases[copy] = f"the bundle has {words}, which bundle.js does not support"
    (tmp_path / "empty").mkdir()
    cases[tmp_path / "empty"] = "cannot read manifest.json"
    damaged, short, torn, partial = (
        Path(shutil.copytree(tiny_bundle, tmp_path / name))
        for name in ("damaged", "short", "torn", "partial")
    )
    weights = bytearray((tiny_bundle / "weights.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (damaged / "weights.bin").write_bytes(weights)
    cases[damaged] = "weights.bin: content differs from the manifest's sha256"
    (short / "weights.bin").write_bytes(weights[:-1])
    cases[short] = f"weights.bin: {len(weights) - 1} bytes, expected {len(weights)}"
    (torn / "manifest.json").write_bytes((tiny_bundle / "manifest.json").read_bytes()[:100])
    cases[torn] = "manifest.json is not JSON"
    (partial / "weights.bin").unlink()
    cases[partial] = "cannot read weights.bin"
    for found, (folder, expected) in zip(open_in_node(list(cases), tmp_path), cases.items(), strict=True):
        assert expected in found.get("error", "it was opened"), folder.name
        assert found["name"] == "BundleError"


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        (
            "std::bad_alloc",
            ["ran out of memory while loading model.onnx", "MB and is too large", "--precision int8"],
        ),
        (
            "opset 99",
            ["cannot load model.onnx: opset 99", "was written with onnxruntime", "newer ONNX Runtime"],
        ),
    ],
)
def test_runtimes_that_fail_are_explained(
    tiny_bundle: Path, tmp_path: Path, fails: str, expected: list[str]
) -> None:
    require("node")
    (found,) = open_in_node([tiny_bundle], tmp_path, fails)
    assert all(part in found["error"] for part in expected), found["error"]
