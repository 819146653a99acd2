"""The oldest ONNX Runtime that runs a bundle's graphs. Opening a bundle needs no onnx for this, and no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from morvit_deploy.agent.core.releases import release
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.errors import StructureError
from morvit_deploy.exporters.onnx.form import OnnxForm
from morvit_deploy.exporters.onnx.graphs.names import graph_files

if TYPE_CHECKING:
    import onnx  # named only

# release -> newest IR version and newest opset of ai.onnx that it loads; each measured with graphs of one node in
# that release's wheel for Linux. Releases between two rows are like the older row
READS = {
    "1.15": (9, 19),
    "1.17": (9, 20),
    "1.18": (10, 21),
    "1.21": (10, 22),
    "1.23": (11, 23),
    "1.24": (13, 25),
    "1.25": (13, 26),
}
TESTED_FROM = "1.16"  # the oldest in which bundles of every precision and dispatch are run by the tests
# 1.18 aborts the process at a LayerNormalization without a bias; every release from this one on runs it
NORM_WITHOUT_BIAS = "1.19"
UNREAD_BESIDE = "1.19"  # the first that plans right for an unread output: `graphs/unread.py`
# bits of a product of weights in blocks -> the first release with a kernel for it on every processor; each measured.
# 1.22 has 8 bits where the processor has fast kernels only
BLOCKS = {4: "1.17", 8: "1.23"}
LAST_IR_OF_BIASES = 8  # bundles of a later IR version were written before each norm got a bias
KNOWN_IRS = range(1, 1 + max(ir for ir, _ in READS.values()))
_IR_FIELD = 0x08  # tag of ModelProto.ir_version, the first field of an ONNX file


@dataclass(frozen=True)
class Held:
    """What an ONNX file holds that not every release runs."""

    ir: int
    opset: int  # of ai.onnx
    norm_without_bias: bool = False
    takes_over_unread: bool = False  # an output that nothing reads has the memory of an earlier value
    blocks: frozenset[int] = frozenset()  # bits of its products of weights in blocks


def lowest_release(files: Iterable[Held]) -> str:
    """The oldest release that runs all these files; StructureError for one that no known release loads."""
    needed = [TESTED_FROM]
    for held in files:
        needed += [_first_to_read(held), *([NORM_WITHOUT_BIAS] if held.norm_without_bias else [])]
        needed += [UNREAD_BESIDE] if held.takes_over_unread else []
        needed += [BLOCKS.get(bits, BLOCKS[8]) for bits in held.blocks]
    return max(needed, key=release)


def _first_to_read(held: Held) -> str:
    for first, (ir, opset) in READS.items():
        if held.ir <= ir and held.opset <= opset:
            return first
    newest, (ir, opset) = [*READS.items()][-1]
    raise StructureError(
        f"a graph has IR version {held.ir} and opset {held.opset}, and ONNX Runtime {newest} loads IR version {ir} "
        f"and opset {opset} at most; export it again"
    )


def held_by(model: onnx.ModelProto) -> Held:
    """What a model holds that not every release runs."""
    from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
    from morvit_deploy.exporters.onnx.graphs.macs import BLOCK_PRODUCT
    from morvit_deploy.exporters.onnx.graphs.unread import takes_over_unread

    opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1)
    nodes = [node for graph in every_graph(model.graph) for node in graph.node]
    norms = (node for node in nodes if node.op_type == "LayerNormalization")
    blocks = {
        attribute.i
        for node in nodes
        if node.op_type == BLOCK_PRODUCT
        for attribute in node.attribute
        if attribute.name == "bits"
    }
    without = any(len(norm.input) < 3 or not norm.input[2] for norm in norms)
    return Held(model.ir_version, opset, without, takes_over_unread(model), frozenset(blocks))


def lowest_of(folder: Path, manifest: Manifest) -> str | None:
    """The oldest release that runs a bundle whose graphs are in `folder`.

    From the manifest, or from the IR version of its files where an older manifest does not state it; None where that
    is not known.
    """
    if isinstance(manifest.target_form, OnnxForm) and manifest.target_form.lowest_runtime:
        return manifest.target_form.lowest_runtime
    files = graph_files(manifest.dispatch, manifest.plan).values()
    versions = [ir for name in files if (ir := ir_version(folder / name)) is not None and ir in KNOWN_IRS]
    known = [Held(ir, opset=1, norm_without_bias=ir > LAST_IR_OF_BIASES) for ir in versions]
    return lowest_release(known) if known else None


def ir_version(path: Path) -> int | None:
    """The IR version of an ONNX file, from its first bytes; None where they say none."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError:
        return None
    return start[1] if len(start) == 2 and start[0] == _IR_FIELD and start[1] < 0x80 else None


def required(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Library to the oldest release that runs the bundle; empty if that is not known."""
    lowest = lowest_of(folder, manifest)
    return {"onnxruntime": lowest} if lowest else {}
