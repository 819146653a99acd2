"""Operations that are known to leave the Neural Engine, each with its source.

Apple publishes no such list; placement changes with the chip, the system and the sizes of tensors
(https://github.com/apple/coremltools/issues/1780). These are findings of others: they suggest where to look first on
a phone, not what the phone will do. No torch, no coremltools.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from morvit_deploy.exporters.coreml.mil.function import Function, Operation

CATALOG = "https://aneforge.readthedocs.io/en/latest/op-catalog/"
CAPABILITIES = "https://aneforge.readthedocs.io/en/latest/capabilities/"
DESIGN_RULES = "https://ane-guide.readthedocs.io/en/latest/part-5-practice/17-model-design-rules.html"
MEASURED_PLAN = "https://github.com/roboflow/rf-detr/pull/1495"
WHISPER_PLAN = (
    "https://huggingface.co/mickekringai/kb-whisper-coreml/blob/main/medium/TextDecoder.mlcomputeplan.json"
)


@dataclass(frozen=True)
class Reason:
    """A source's finding on an operation."""

    said: str
    source: str


@dataclass(frozen=True)
class Leaving:
    """Operations of one function that are known to leave the Neural Engine."""

    what: str
    count: int
    said: str
    source: str


_NOWHERE = Reason(
    "a catalogue of the engine's operations has it as unsupported on every chip up to the M5", CATALOG
)

OPERATIONS: dict[str, Reason] = {
    "topk": Reason(
        "MLComputePlan puts it on the CPU in fp16 detectors on an M3 Pro (macOS 27, coremltools 9.0), and with it "
        "the expand_dims, tile and gather_along_axis that read its indices",
        MEASURED_PLAN,
    ),
    "gather_along_axis": Reason(
        "MLComputePlan puts it on the CPU where its indices come from topk, in fp16 detectors on an M3 Pro",
        MEASURED_PLAN,
    ),
    "gather": Reason(
        "a Core ML compute plan of Whisper's decoder lists only the CPU as able to run it", WHISPER_PLAN
    ),
    "gather_nd": Reason(
        "the catalogue has it on the M1 for indices of three channels alone, and on later chips", CATALOG
    ),
    "argsort": Reason("the catalogue has it as rejected on the M1, and on later chips", CATALOG),
    "cumsum": Reason("the catalogue has MIL's own cumsum as not implemented on the engine", CATALOG),
    "range_1d": Reason("the catalogue has it as rejected on the M1", CATALOG),
    "reduce_argmin": Reason("the catalogue has it as rejected on the M1 and M2", CATALOG),
    "while_loop": Reason("the catalogue has no code for it on the engine: it is to be unrolled", CATALOG),
    "cond": Reason("the catalogue has no code for it on the engine: it is to be decided outside", CATALOG),
    **dict.fromkeys(
        (
            *(
                "scatter",
                "scatter_nd",
                "scatter_along_axis",
                "non_zero",
                "one_hot",
                "shape",
                "band_part",
                "mod",
            ),
            *("logical_and", "logical_or", "logical_xor", "reduce_prod"),
            *("make_list", "list_gather", "list_length", "list_read", "list_scatter", "list_write"),
        ),
        _NOWHERE,
    ),
}
INTEGER_CAST = Reason("a cast to int32 is rejected on the M1", DESIGN_RULES)
INTEGERS = Reason("tensors of int32 have no path on the engine", CAPABILITIES)
SINGLE = Reason(
    "the engine's datapath is fp16; fp32 is accepted as a type, not as wider arithmetic", DESIGN_RULES
)


def leaving(function: Function) -> list[Leaving]:
    """Operations of a function that are known to leave the Neural Engine, the most frequent first.

    An operation counts once, under the first reason that applies: its name, a cast to int32, or the type of its
    result.
    """
    found = Counter(reason for op in function.operations if (reason := _reason(op)) is not None)
    return [Leaving(what, count, why.said, why.source) for (what, why), count in found.most_common()]


def _reason(operation: Operation) -> tuple[str, Reason] | None:
    if operation.type == "const" or operation.type.startswith("constexpr_"):
        return None
    if operation.type in OPERATIONS:
        return operation.type, OPERATIONS[operation.type]
    kinds = {value.type.dtype for value in operation.outputs if value.type.shape}
    if "int32" in kinds:
        if operation.type == "cast":
            return "cast to int32", INTEGER_CAST
        return f"{operation.type} of int32", INTEGERS
    if "fp32" in kinds and operation.type != "cast":
        return f"{operation.type} in fp32", SINGLE
    return None
