"""Weights of a Core AI asset in fewer bits: each is the model's within rounding, stored once, routers in float."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from absent import COMMAND, without
from adaptive_plans import depth_plan
from places import EXAMPLES
from tiny_models import make_config, random_model
from torch.utils import cpp_extension

from morvit_deploy.bundle.manifest import Manifest, open_manifest
from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.coreai import compress as coreai_compress
from morvit_deploy.exporters.coreai import compressed, proof
from morvit_deploy.exporters.coreai.export import CoreaiExporter
from morvit_deploy.exporters.coreai.form import CoreaiForm
from morvit_deploy.exporters.coreai.names import ASSET
from morvit_deploy.exporters.coreai.printed.program import ALIGNMENT, CONSTANT, ProgramText, read_program
from morvit_deploy.exporters.functions.weights import content_key
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.machine.extras import is_missing
from morvit_deploy.model.plan import own_plan

needs_coreai = pytest.mark.skipif(
    is_missing("coreai_torch") or is_missing("coreai"), reason='needs pip install "morvit-deploy[coreai]"'
)
needs_opt = pytest.mark.skipif(
    is_missing("coreai_torch") or is_missing("coreai_opt"), reason='needs pip install "morvit-deploy[coreai]"'
)

# large enough to be compressed, hidden layers of the routers included
CONFIG = make_config(
    embed_dim=64, mlp_dim=64, routing="token_choice", num_recursions=1, router={"hidden": [64]}
)
PLAN = depth_plan(CONFIG, [(16, 9, 4)])

Exported = Callable[..., Path]


@pytest.fixture(scope="module")
def small(exported: Exported) -> Path:
    """A stem and two buckets in int8."""
    return exported(CONFIG, plan=PLAN, target="coreai", weights="int8", allow_worse=True)


@pytest.fixture(scope="module")
def text(small: Path) -> str:
    from coreai.authoring import AIModelAsset

    return str(AIModelAsset.load(str(small / ASSET)).program)


@pytest.fixture(scope="module")
def graphs(small: Path) -> dict[str, StaticMoRViT]:
    return graphs_of(open_manifest(small))


def graphs_of(manifest: Manifest) -> dict[str, StaticMoRViT]:
    options = CoreaiExporter().options(manifest, with_depth=False)
    return build_graphs("unrolled", random_model(manifest.config), manifest.plan, options)


def routers_in_float(bundle: Path, manifest: Manifest) -> bool:
    program = read_program(bundle / ASSET)
    constants = [op for graph in program.graphs.values() for op in graph.operations if op.kind == CONSTANT]
    half = manifest.precision == "fp16"
    held = {content_key(program.array(op)) for op in constants if op.makes[0].dtype in ("f16", "f32")}
    routers = random_model(manifest.config).routers.parameters()
    wanted = [p.numpy().astype(np.float16 if half else np.float32) for p in routers if p.ndim > 1]
    return all(content_key(weight) in held for weight in wanted)


@needs_opt
def test_int8_in_every_function(small: Path) -> None:
    manifest = open_manifest(small)
    structure, parity = manifest.structure, manifest.parity
    assert structure["proved"] and parity is not None
    assert parity["gate"] == {"tokens": 0.99, "top1": 0.99, "snr_db": 24.0}  # that of int8
    assert CoreaiForm.of(manifest).weights == "int8" and CoreaiForm.of(manifest).functions == (
        "stem",
        "b0",
        "full",
    )
    assert structure["operators"]["blockwise_shift_scale"] > 10
    large = sum(
        4 * p.numel()
        for name, p in random_model(CONFIG).named_parameters()
        if "mlp" in name or "attn" in name
    )
    assert structure["weight_bytes"] < 0.6 * large
    assert routers_in_float(small, manifest)
    inside = CoreaiForm.of(manifest).inside
    assert inside["stem"] and inside["b0"]  # found in spite of other numbers; parity compared them


@pytest.mark.slow
@needs_opt
@pytest.mark.parametrize(
    ("weights", "precision"),
    [
        *((weights, "fp32") for weights in ("int8", "int4", "palette8", "palette6", "palette4")),
        ("int8", "fp16"),
        ("palette8", "fp16"),
    ],
)
def test_weights_in_fewer_bits(exported: Exported, weights: str, precision: str) -> None:
    config = make_config(
        embed_dim=128, mlp_dim=128, num_heads=4, routing="token_choice", router={"hidden": [128]}
    )
    form = {"target": "coreai", "weights": weights, "precision": precision, "allow_worse": True}
    bundle = exported(config, plan=own_plan(config), **form)
    manifest = open_manifest(bundle)
    assert manifest.structure["proved"] and routers_in_float(bundle, manifest)
    assert {"embed", "depth.router_logits", "step1.state", "step5.state"} <= set(manifest.probes)
    name = "lut_to_dense" if "palette" in weights else "blockwise_shift_scale"
    assert manifest.structure["operators"][name] >= 12


def edited(text: str, operand: int, change: Callable[[bytes], bytes]) -> str:
    """The text with another content of an operand of the first operation that unpacks a weight."""
    program = ProgramText(text)
    every = (op.parts for graph in program.functions for op in graph.operations if op.parts)
    heads = (parts[operand].head.partition("<")[2][:-1] for parts in every)
    held = next(head for head in heads if not head.startswith("["))  # a short one is written as a list
    written = program._resources[held][ALIGNMENT:] if held in program._resources else held[3:-1]
    return text.replace(written, change(bytes.fromhex(written)).hex())


def larger(stored: bytes) -> bytes:
    (scale,) = struct.unpack("<f", stored[:4])
    return struct.pack("<f", 1.1 * scale) + stored[4:]


def next_step(stored: bytes) -> bytes:
    return bytes([(stored[0] + 1) % 256]) + stored[1:]


def found(
    small: Path, graphs: dict[str, StaticMoRViT], text: str, patch: pytest.MonkeyPatch, **form: str
) -> list[str]:
    manifest = open_manifest(small)
    told = CoreaiForm.of(manifest).model_copy(update=form)
    patch.setattr(proof, "read_program", lambda asset: ProgramText(text))
    return proof.prove(small, manifest.model_copy(update={"target_form": told}), graphs).violations


@needs_opt
@pytest.mark.parametrize(("operand", "change"), [(1, larger), (0, next_step)], ids=["scale", "value"])
def test_a_changed_weight_is_found(
    small: Path,
    graphs: dict[str, StaticMoRViT],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    operand: int,
    change: Callable[[bytes], bytes],
) -> None:
    assert found(small, graphs, text, monkeypatch) == []
    (told,) = found(small, graphs, edited(text, operand, change), monkeypatch)
    assert "steps of int8, at most 0.5 expected" in told


@needs_opt
def test_a_compressed_router_is_found(
    small: Path, graphs: dict[str, StaticMoRViT], monkeypatch: pytest.MonkeyPatch
) -> None:
    from coreai.authoring import AIModelAsset

    whole = coreai_compress._how("int8")(AIModelAsset.load(str(small / ASSET)).program)
    told = found(small, graphs, str(whole), monkeypatch)
    assert len(told) == 1 and all(
        "'routers." in line and "is stored as si8, expected float" in line for line in told
    )


@needs_opt
@pytest.mark.parametrize(("weights", "expected"), [("int4", "si4"), ("float", "float")])
def test_compression_is_what_the_manifest_says(
    small: Path,
    graphs: dict[str, StaticMoRViT],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    weights: str,
    expected: str,
) -> None:
    told = found(small, graphs, text, monkeypatch, weights=weights)
    assert any(f"is stored as si8, expected {expected}" in line for line in told)


@needs_opt
def test_a_weight_that_is_left_in_float_is_found(
    small: Path, graphs: dict[str, StaticMoRViT], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(coreai_compress.SMALL, "int8", 16)
    told = found(small, graphs, text, monkeypatch)
    assert told and all("is stored as float, expected si8" in line for line in told)


@needs_opt
def test_a_compressed_weight_is_stored_once(
    small: Path, graphs: dict[str, StaticMoRViT], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = ProgramText(text)
    unpacks = next(op for op in program.graphs["full"].operations if op.parts)
    name = unpacks.parts[0].head.partition("<")[2][:-1]
    before, _, full = text.partition("coreai.graph @full(")
    twice = full.replace(f"<{name}>", "<again>", 1).replace(
        "    builtin: {\n", f'    builtin: {{\n      again: "0x{program._resources[name]}",\n', 1
    )
    (told,) = found(small, graphs, before + "coreai.graph @full(" + twice, monkeypatch)
    assert "is stored 2 times, expected once" in told


def test_palettes_are_means_and_nearest() -> None:
    weight = np.array([[0.0, 0.1, 1.0], [1.1, 2.0, 2.1]], np.float32)
    indices, table = np.array([[0, 0, 1], [1, 2, 2]], np.uint8), np.array([0.05, 1.05, 2.05, 0], np.float32)

    def told(indices: Any, table: Any) -> str:
        return compressed._palette_problem([indices, table.reshape(1, 1, 4, 1)], weight, "palette4") or ""

    assert told(indices, table) == ""
    assert told(indices.T, table) == ""  # turned
    assert "not the mean" in told(indices, table + np.float32(0.01))
    moved = np.array([[0, 1, 1], [1, 2, 2]], np.uint8)
    means = np.array([0.0, 2.2 / 3, 2.05, 0], np.float32)
    assert "another entry of palette4 is nearer" in told(moved, means)


@needs_coreai
def test_without_the_library_one_line_installs_it(tmp_path: Path) -> None:
    words = ("export", EXAMPLES / "digits-expert", "--target", "coreai", "--weights", "int8")
    done = without(["coreai_opt"], tmp_path, COMMAND, *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: weights 'int8' requires coreai_opt, which is not installed; "
        'run `pip install "morvit-deploy[coreai]"`'
    )


@needs_opt
def test_a_palette_that_cannot_be_made_is_named(
    small: Path, graphs: dict[str, StaticMoRViT], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where k-means cannot be compiled, coreai-opt logs that and goes on."""
    import logging

    def skips(program: Any) -> Any:
        logging.getLogger("coreai_opt.coreai_utils").warning("Failed to palettize op x. Skipped: no c++")
        return program

    monkeypatch.setattr(coreai_compress, "_how", lambda weights: skips)
    with pytest.raises(
        TargetError, match=r"left a weight in float: .*no c\+\+\. Palettes require a C\+\+ compiler"
    ):
        coreai_compress.compress(small / ASSET, "palette8", graphs["full"], {})


def test_an_environment_in_a_folder_with_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp_extension, "TORCH_LIB_PATH", "/a folder/lib")
    with coreai_compress.quoted_libraries():
        assert cpp_extension.TORCH_LIB_PATH == "'/a folder/lib'"
    assert cpp_extension.TORCH_LIB_PATH == "/a folder/lib"
