"""Manifests of Core ML bundles without an export, and what reads Swift on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tree_sitter_swift
from tiny_models import random_pixels
from tree_sitter import Language, Node, Parser

from morvit_deploy.bundle.manifest import Manifest, Port
from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.coreml.kit.write import Golden
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan, own_plan

PARSER = Parser(Language(tree_sitter_swift.language()))


def coreml_manifest(config: Config, plan: Plan | None = None, *, ios: int = 18, **changes: Any) -> Manifest:
    """What an fp32 export of `config` says of itself, depth included."""
    plan = plan or own_plan(config)
    size, patches = config.image_size, config.num_patches
    names = [bucket.name for bucket in plan.buckets]
    functions = ["stem", *names] if plan.adaptive else ["main"]
    outputs = [
        Port(name="logits", dtype="float32", shape=(1, config.num_classes)),
        Port(name="depth", dtype="int32", shape=(1, patches)),
    ]
    if plan.adaptive:
        outputs.append(Port(name="bucket", dtype="int32", shape=(1,)))
    if plan.mode == "threshold":
        outputs.append(Port(name="overflow", dtype="int32", shape=(1,)))
    state = Port(name="stem.state", dtype="float32", shape=(1, patches, config.embed_dim))
    fields: dict[str, Any] = {
        "format": "morvit-bundle/2",
        "target": "coreml",
        "precision": "fp32",
        "target_form": CoremlForm(
            ios=ios,
            layout="bsd",
            select="topk",
            weights="float",
            classifier=False,
            functions=tuple(functions),
        ),
        "form": "unrolled",
        "dispatch": "host" if plan.adaptive else "single",
        "batch": 1,
        "input": "uint8",
        "config": config,
        "plan": plan,
        "preprocess": config.preprocess,
        "labels": config.labels,
        "checkpoint": {"sha256": "ab" * 32, "parameters": 1},
        "files": ({"path": "MoRViT.mlpackage/Manifest.json", "bytes": 1, "sha256": "cd" * 32},),
        "inputs": (Port(name="image", dtype="uint8", shape=(1, size, size, 3)),),
        "outputs": tuple(outputs),
        "carried": (state,) if plan.adaptive else (),
        "probes": (),
        "macs": {bucket.name: bucket.macs for bucket in plan.buckets},
        "structure": {},
        "parity": None,
        "versions": {},
    }
    return Manifest.model_validate(fields | changes)


def made_up_golden(config: Config, buckets: list[int], tolerance: float = 1e-3) -> Golden:
    """Images of the model's size and random logits, for what does not run the model."""
    logits = np.random.default_rng(0).normal(size=(len(buckets), config.num_classes))
    return Golden(
        pixels=random_pixels(config, len(buckets)),
        logits=logits.astype(np.float32),
        bucket=np.array(buckets, dtype=np.int32),
        tolerance=tolerance,
    )


def syntax_problems(path: Path) -> list[str]:
    """Where a Swift file does not parse: `line: text`."""
    problems: list[str] = []
    stack: list[Node] = [PARSER.parse(path.read_bytes()).root_node]
    while stack:
        node = stack.pop()
        if node.is_error or node.is_missing:
            text = (node.text or b"").decode(errors="replace")
            problems.append(f"{path.name}:{node.start_point[0] + 1}: {text[:60]!r}")
        stack += node.children
    return problems
