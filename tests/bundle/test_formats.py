"""Bundles of morvit-bundle/1 still open: manifests as that version wrote them, one of each target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from morvit_deploy.bundle.forms import TargetForm
from morvit_deploy.bundle.manifest import Manifest, open_manifest
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.coreml.sdk.bundle import read_package
from morvit_deploy.exporters.onnx.form import OnnxForm
from morvit_deploy.exporters.targets import targets
from morvit_deploy.exporters.trt.form import TrtForm

# `structure` and `parity`, which nothing reads back, are shortened
ONNX = """
{"format": "morvit-bundle/1", "target": "onnx", "precision": "fp32", "lowering": null, "coreml": null, "trt": null,
 "form": "unrolled", "dispatch": "single", "batch": 1, "input": "uint8",
 "config": {"format": "morvit/1", "image_size": 32, "patch_size": 8, "in_channels": 3, "num_classes": 3,
  "embed_dim": 16, "num_heads": 2, "mlp_dim": 24, "qkv_bias": true, "norm_eps": 1e-06, "activation": "gelu",
  "sharing": "middle_cycle", "cycle_depth": 1, "num_recursions": 3, "routing": "expert_choice",
  "router": {"hidden": [], "activation": "sigmoid", "bias": true, "shared": false, "alpha": 1.0}, "gate": "block",
  "attention_scope": "active", "capacity": [12, 6, 3], "head_hidden": [],
  "preprocess": {"mean": [0.4, 0.5, 0.6], "std": [0.3, 0.25, 0.2], "resize": 36, "interpolation": "bicubic"},
  "labels": null, "register_tokens": 0, "provenance": null},
 "plan": {"format": "morvit-plan/1", "mode": "topk", "thresholds": null,
  "buckets": [{"name": "topk", "capacity": [12, 6, 3], "macs": 150528, "share": null, "upto": null}],
  "checkpoint": null, "calibration": null},
 "preprocess": {"mean": [0.4, 0.5, 0.6], "std": [0.3, 0.25, 0.2], "resize": 36, "interpolation": "bicubic"},
 "labels": null,
 "checkpoint": {"sha256": "a34036c5425524d7b65b18791352566e9b3228ec0405ba86f6a26f3a916bdf50", "parameters": 9390},
 "files": [{"path": "model.onnx", "bytes": 5,
  "sha256": "eef93e1d14482804277fca0172464032d1a4fdbcc338524059fa1e861454ad4d"}],
 "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 32, 32, 3]}],
 "outputs": [{"name": "logits", "dtype": "float32", "shape": [1, 3]}], "carried": [],
 "probes": ["embed", "first", "step1.router_logits"], "macs": {"topk": 150528},
 "structure": {"proved": true}, "parity": {"passed": true}, "versions": {"morvit-deploy": "0.1.0"}}
"""
TRT = """
{"target": "trt", "precision": "bf16",
 "lowering": {"flavor": null, "calibration": null, "images": 0, "buckets": {}, "smoothing": {}, "lifted": [],
  "facts": {}, "accepted": []},
 "trt": {"flavor": "rtx", "compute_capability": ["SM89"], "hardware_compatible": false, "version_compatible": false,
  "max_batch": null}}
"""
COREML = """
{"target": "coreml",
 "coreml": {"ios": 17, "layout": "bc1s", "select": "topk", "attention": "manual", "weights": "float",
  "classifier": false, "functions": ["main"]},
 "files": [{"path": "MoRViT.mlpackage/Manifest.json", "bytes": 5,
  "sha256": "eef93e1d14482804277fca0172464032d1a4fdbcc338524059fa1e861454ad4d"}],
 "outputs": [{"name": "logits", "dtype": "float32", "shape": [1, 3]},
  {"name": "depth", "dtype": "int32", "shape": [1, 16]}]}
"""
FORMS = {
    "onnx": OnnxForm(),  # the lowest runtime is not stated
    "trt": TrtForm(flavor="rtx", compute_capability=("SM89",)),
    "coreml": CoremlForm(
        ios=17, layout="bc1s", select="topk", weights="float", classifier=False, functions=("main",)
    ),
}


def first(target: str, **changes: Any) -> dict[str, Any]:
    """The fields of a manifest of /1."""
    own = {"onnx": {}, "trt": json.loads(TRT), "coreml": json.loads(COREML)}[target]
    return dict(json.loads(ONNX) | own | changes)


def written(folder: Path, fields: dict[str, Any]) -> Path:
    """The bundle of a manifest; each file holds `graph`."""
    for file in fields["files"]:
        (folder / file["path"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / file["path"]).write_text("graph")
    (folder / "manifest.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize("target", FORMS)
def test_an_older_bundle_opens_and_is_written_as_today(tmp_path: Path, target: str) -> None:
    manifest = open_manifest(written(tmp_path, first(target)))
    assert manifest.format == "morvit-bundle/2" and manifest.target == target
    assert manifest.target_form == FORMS[target] and type(manifest.target_form) is type(FORMS[target])
    fields = json.loads(manifest.to_json())
    assert "coreml" not in fields and "trt" not in fields
    assert open_manifest(written(tmp_path, fields)) == manifest
    assert Manifest.model_validate(manifest.model_dump()) == manifest


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (first("onnx", trt=first("trt")["trt"]), "trt: unknown field"),
        (first("coreml", coreml=None), "target_form.ios: missing"),
        (first("trt", trt={"flavor": "cuda"}), "target_form.flavor: got 'cuda'"),
        (first("onnx", precision="bf16", lowering=first("trt")["lowering"]), "'bf16' with target 'onnx'"),
        (first("coreml", outputs=first("onnx")["outputs"] + [{"name": "depth", "dtype": "uint8", "shape": [1, 16]}]),
         "outputs.depth: uint8 [1, 16], expected int32"),
        (first("coreml", coreml=first("coreml")["coreml"] | {"functions": ["stem"]}),
         "target_form.functions: ['stem']"),
        (first("onnx", format="morvit-bundle/2"), "target_form: missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_broken_entry_is_explained(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(BundleError) as refused:
        open_manifest(written(tmp_path, fields))
    assert says in str(refused.value)


def test_the_bench_of_a_mac_reads_both(tmp_path: Path) -> None:
    old = read_package(written(tmp_path, first("coreml")))
    today = json.loads(open_manifest(tmp_path).to_json())
    assert read_package(written(tmp_path, today)) == old and old.ios == 17


def test_each_target_has_what_the_program_asks() -> None:
    for name, target in targets().items():
        assert target.name == name and issubclass(target.load_form(), TargetForm)
        assert target.precision in target.precisions and target.devices
        assert target.gates.keys() >= {*target.precisions} - {"fp32"}
