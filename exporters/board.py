"""What a board needs of a bundle beside the bundle's own files. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from morvit_deploy.agent.core.running import Runner


@dataclass(frozen=True)
class BoardFiles:
    """What a target's runner on the board reads, beside the files that the manifest lists."""

    graphs: Mapping[str, str] = field(default_factory=dict)  # part of the bundle to its file
    alone: Mapping[str, bytes] = field(default_factory=dict)  # each bucket's graph without the choice, if any
    alone_file: str = "alone-{}.onnx"  # of a bucket
    files: Mapping[str, bytes] = field(default_factory=dict)  # that the bundle itself does not have
    more: Mapping[str, object] = field(default_factory=dict)  # plain JSON that only that runner reads
    open_reference: Callable[[], Runner] | None = (
        None  # whose logits the board's are held to; None: the bundle's
    )
