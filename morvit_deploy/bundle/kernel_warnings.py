"""What to say where a bundle's int8 products saturate on this machine. No torch."""

from __future__ import annotations

from morvit_deploy.machine import integer_kernels
from morvit_deploy.model.precision import Lowering


def kernel_warnings(lowering: Lowering | None) -> tuple[str, ...]:
    """A sentence where a bundle's int8 products saturate on this machine."""
    if lowering is None or lowering.flavor != "cpu" or lowering.weight_bits == 7:
        return ()
    here = integer_kernels.kernels_here()
    if not here.saturating:
        return ()
    return (
        f"int8 products saturate on this processor ({here.instruction_set}, no VNNI) and the bundle has 8-bit "
        "weights: its results can be far worse here than where it was exported. Export it on a machine like this "
        "one, which gives 7-bit weights, or run it with session.disable_quant_qdq=1, at the speed of float",
    )
