"""Measurements made of given samples."""

from __future__ import annotations

from morvit_deploy.measuring.core.results import MeasuredBundle
from morvit_deploy.timing.samples import Block, Start


def measured(
    *blocks: tuple[float, ...], batch: int = 1, bundle: str = "a", macs: int = 2_000_000
) -> MeasuredBundle:
    return MeasuredBundle(
        name=bundle,
        target="onnx",
        precision="fp32",
        form="unrolled",
        batch=batch,
        macs={"topk": macs},
        file_bytes=1000,
        inputs_digest="0",
        starts=(Start(3.0, 2.0, 1.0, None), Start(5.0, 2.0, 1.0, None), Start(90.0, 2.0, 1.0, None)),
        blocks=tuple(Block(ms) for ms in blocks),
        memory_mib={"resident": 10.0},
    )
