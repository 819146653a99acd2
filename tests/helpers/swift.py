"""Manifests of bundles for Apple's runtimes without an export, and what reads Swift on any machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tree_sitter_swift
from tiny_models import random_pixels
from tree_sitter import Language, Node, Parser

import morvit_deploy.exporters.targets  # noqa: F401 -- manifests name a target
from morvit_deploy.bundle.manifest import Manifest, Port
from morvit_deploy.exporters.coreai.form import CoreaiForm
from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.kit.write import Golden
from morvit_deploy.model.choices import Output
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan, own_plan

PARSER = Parser(Language(tree_sitter_swift.language()))


def coreml_manifest(config: Config, plan: Plan | None = None, *, ios: int = 18, **changes: Any) -> Manifest:
    """What an fp32 export of `config` says of itself, depth included."""
    plan = plan or own_plan(config)
    size, patches = config.image_size, config.num_patches
    names = [bucket.name for bucket in plan.buckets]
    functions = ["stem", *names] if plan.adaptive else ["main"]
    output: Output = changes.get("output", "logits")
    shape = {
        "logits": (config.num_classes,),
        "features": (config.embed_dim,),
        "tokens": (patches, config.embed_dim),
    }
    outputs = [
        Port(name=output, dtype="float32", shape=(1, *shape[output])),
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


def coreai_manifest(config: Config, plan: Plan | None = None, **changes: Any) -> Manifest:
    """The same of target `coreai`."""
    functions = coreml_manifest(config, plan).target_form.model_dump()["functions"]
    fields: dict[str, Any] = {
        "target": "coreai",
        "target_form": CoreaiForm(select="topk", functions=functions),
        "files": ({"path": "MoRViT.aimodel/main.mlirb", "bytes": 1, "sha256": "cd" * 32},),
    }
    return coreml_manifest(config, plan, **(fields | changes))


def made_up_golden(
    config: Config, buckets: list[int], tolerance: float = 1e-3, numbers: int | None = None
) -> Golden:
    """Images of the model's size and random logits, or `numbers` of each, for what does not run the model."""
    logits = np.random.default_rng(0).normal(size=(len(buckets), numbers or config.num_classes))
    return Golden(
        pixels=random_pixels(config, len(buckets)),
        answers=logits.astype(np.float32),
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


_NAME = re.compile(r"\b(?:func|let|var|case) (\w+)|\b(init)\(")
_LABEL = re.compile(r"(?:^|,)\s*(\w+)(?: \w+)?\s*:")


def declared_names(path: Path) -> set[str]:
    """Names of functions with their labels, `color(depth:lowest:highest:)`, and of properties and cases."""
    return {name for node in _declarations(path) if (name := _full_name(_text(node)))}


def renamed(path: Path) -> list[tuple[str, str]]:
    """Each deprecated declaration's name, and the name that its attribute gives as the new one."""
    pairs = []
    for node in _declarations(path):
        attribute = re.search(r'@available\(\*, deprecated, renamed: "([^"]+)"\)', _text(node))
        if attribute is not None:
            pairs.append((_full_name(_text(node)), attribute[1]))
    return pairs


def _declarations(path: Path) -> Iterator[Node]:
    kinds = {"function_declaration", "property_declaration", "init_declaration", "enum_entry"}
    stack: list[Node] = [PARSER.parse(path.read_bytes()).root_node]
    while stack:
        node = stack.pop()
        if node.type in kinds:
            yield node
        stack += node.children


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def _full_name(declaration: str) -> str:
    """`color(depth:lowest:)` of a function's text, `depth` of a property's."""
    declaration = re.sub(r'@available\(.*?"\)', "", declaration)  # its text has names, too
    match = _NAME.search(declaration)
    if match is None:
        return ""
    name = match[1] or match[2]
    behind = declaration[match.end(1) if match[1] else match.end(2) :]
    if not re.match(r"(<\w+>)?\(", behind):
        return name
    start = behind.index("(") + 1
    return f"{name}({''.join(f'{label}:' for label in _LABEL.findall(_inside(behind[start:])))})"


def _inside(text: str) -> str:
    """The parameters up to the closing parenthesis, without what is in brackets of their own."""
    depth, kept = 0, ""
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if depth < 0:
            break
        kept += sign if depth == 0 else ""
    return kept
