"""Which instructions ONNX Runtime uses for int8 products on a processor, and whether their sums saturate. No torch.

x86 processors without VNNI multiply uint8 by int8 with `vpmaddubsw`, which adds two products in 16 bits: with 8-bit
weights 2 × 255 × 127 saturates, with 7-bit weights 2 × 255 × 64 fits. VNNI and AMX add in 32 bits. The kernels for
ARM widen before they add (`umull`, `udot`, `ummla`), and the portable ones are plain C.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from morvit_deploy.agent.host import machine

X86 = ("x86_64", "amd64", "x86", "i386", "i686")
IN_32_BITS = ("amx_int8", "avx512_vnni", "avx_vnni")  # x86, the best first
OTHERS = ("avx512f", "avx2", "i8mm", "asimddp", "asimd")


@dataclass(frozen=True)
class IntegerKernels:
    """The int8 kernels of ONNX Runtime on one processor."""

    instruction_set: str  # the best available one; the architecture if none is known
    saturating: bool  # sums of two products stop at 16 bits

    @property
    def weight_bits(self) -> Literal[7, 8]:
        """Bits of a weight so that no sum saturates."""
        return 7 if self.saturating else 8


def integer_kernels(architecture: str, flags: Collection[str]) -> IntegerKernels:
    """The kernels for `platform.machine()` and the flags of /proc/cpuinfo.

    An x86 processor whose flags are unknown, as on Windows and macOS, counts as saturating: 7 bits are correct on
    every processor.
    """
    architecture = architecture.lower()
    best = next((name for name in (*IN_32_BITS, *OTHERS) if name in flags), architecture or "unknown")
    return IntegerKernels(best, architecture in X86 and not {*IN_32_BITS} & {*flags})


def kernels_of(machine: Mapping[str, Any]) -> IntegerKernels:
    """The kernels of a machine, perhaps another one, that `agent.host.machine` described."""
    return integer_kernels(machine["system"].split()[-1], machine["instruction_sets"])


def kernels_here() -> IntegerKernels:
    """The kernels on this machine."""
    return integer_kernels(platform.machine(), machine.instruction_sets())
